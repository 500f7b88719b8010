//! The magnitude of an initialisation: of one that is made, and of one that is not.

use super::input::LayerInput;
use super::pipeline::{Initialization, initialize};
use super::spec::SchemeSpec;
use crate::Result;
use crate::factors::Factors;
use crate::growth::{InitMagnitude, LayerFacts, k1_of_factors};
use crate::magnitude;
use crate::targets::LayerPlan;
use crate::weight::StoredWeight;

impl InitMagnitude {
    /// Returns the magnitude of an initialisation that is made.
    pub fn of(init: &Initialization) -> InitMagnitude {
        InitMagnitude::of_factors(&init.factors, init.scaling, [init.train_a, init.train_b])
    }

    /// Returns the magnitude of given factors; `trained` says which of A and B are trained.
    pub fn of_factors(factors: &Factors, scaling: f64, [train_a, train_b]: [bool; 2]) -> InitMagnitude {
        InitMagnitude {
            scaling,
            r: factors.r,
            k1_a: k1_of_factors(factors, train_a, false),
            k1_b: k1_of_factors(factors, false, train_b),
            nu_a: magnitude::nu(&factors.a),
            nu_b: magnitude::nu(&factors.b),
        }
    }

    /// Returns the magnitude that a scheme has on a weight: by its formula where it has one
    /// ([`SchemeInfo::magnitude`](crate::SchemeInfo)), else by initialising. `sigma` are the weight's singular values,
    /// descending, or an estimate ([`crate::sketch_spectrum`]); `embedding` says that the module is one. Errors: those of [`initialize`]; a scheme that needs
    /// calibration data.
    pub fn predict(
        spec: &SchemeSpec,
        w: StoredWeight<'_>,
        plan: &LayerPlan,
        seed: u64,
        sigma: &[f64],
        embedding: bool,
    ) -> Result<InitMagnitude> {
        let plan = spec.adjust(plan)?;
        let LayerPlan { n, m, r, scaling, .. } = plan;
        let nu_w = w.sums().1 / (n * m) as f64;
        let facts = LayerFacts { n, m, r, scaling, nu_w, sigma: Some(sigma), embedding };
        let options = spec.options();
        match spec.info().magnitude.and_then(|formula| formula(options, &facts)) {
            Some(found) => Ok(found.scaled(options.init_scale_a, options.init_scale_b)),
            None => Ok(InitMagnitude::of(&initialize(spec, LayerInput::from(w).of_embedding(embedding), &plan, seed)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::equivalence::Optimizer;
    use crate::gain::singular_values;
    use crate::growth::Knob;
    use crate::rng::Stream;
    use crate::schemes::observed::Statistic;
    use crate::schemes::registry::registry;

    #[test]
    fn formulas_agree_with_the_factors() {
        let (n, m, r, s) = (96, 160, 8, 0.5);
        let w: Vec<f32> = Stream::new(5, "w", 0).normals(n * m, 0.02).iter().map(|&x| x as f32).collect();
        let w = StoredWeight::of(&w, n, m);
        let sigma = singular_values("w", w).unwrap();
        for scheme in registry().iter().filter(|s| s.statistic == Statistic::None) {
            let name = scheme.name.replace("-k", "-24");
            let spec = SchemeSpec::parse(&name, &Default::default()).unwrap();
            let plan = LayerPlan { path: "x".into(), n, m, r, lora_alpha: s * r as f64, scaling: s };
            let made = InitMagnitude::of(&initialize(&spec, w, &plan, 1).unwrap());
            let predicted = InitMagnitude::predict(&spec, w, &plan, 1, &sigma, false).unwrap();
            // the entries' sample makes the random ones scatter
            let allowed = if scheme.needs_weight() { 1e-3 } else { 0.25 };
            let parts = |m: &InitMagnitude| [m.k1_a, m.k1_b, m.nu_a, m.nu_b, m.scaling, m.k1()];
            for (x, y) in parts(&made).into_iter().zip(parts(&predicted)) {
                assert!((x - y).abs() <= allowed * y.abs(), "{name}: {made:?} {predicted:?}");
            }
            // the scheme says itself how its factors follow the scaling
            let double = LayerPlan { scaling: 2.0 * s, lora_alpha: 2.0 * plan.lora_alpha, ..plan.clone() };
            let doubled = InitMagnitude::of(&initialize(&spec, w, &double, 1).unwrap());
            let shrinks = doubled.nu_a < 0.9 * made.nu_a || doubled.nu_b < 0.9 * made.nu_b;
            assert_eq!(shrinks, spec.over_scaling(), "{name}");
            for (knob, other) in [(Knob::Scaling, doubled), (Knob::Initialization, made.scaled(2.0, 2.0))] {
                for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
                    let first = |m: &InitMagnitude| m.first_step(optimizer, 1e-3, 2e-3);
                    if !spec.sets_scaling() || knob == Knob::Initialization {
                        let found = knob.multiple(optimizer, spec.over_scaling(), first(&made), first(&other));
                        assert!((found - 2.0).abs() < 1e-3, "{name} {knob:?} {optimizer:?}: {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn figures_of_the_paper() {
        let facts = LayerFacts { n: 4096, m: 4096, r: 16, scaling: 1.0, nu_w: 4e-4, sigma: None, embedding: false };
        let k1 = |name: &str| {
            // ln 16 / ln 4096 = 1/3
            let spec = SchemeSpec::parse(name, &Default::default()).unwrap();
            spec.info().magnitude?(spec.options(), &facts).map(|m| m.k1())
        };
        assert!((k1("lora").unwrap() - 16.0 / (9.0 * 4096.0)).abs() < 1e-15);
        assert!((k1("loram").unwrap() - 8192.0 * 4e-4 / 3.0).abs() < 1e-12);
        assert!(k1("pissa").is_none() && k1("olora").is_none());
    }
}
