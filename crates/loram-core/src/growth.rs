//! How fast an update grows (Proposition 2 of 2507.06558).
//!
//! With a gradient ∇_W of independent entries of second moment σ_L², SGD at rate η moves W so that
//! ν\[ΔW_t\] ≈ s⁴·k₁·γ·t with γ = η²σ_L², as long as ΔA and ΔB are small beside the start. For independent zero-mean entries
//! k₁ = r·(m·σ_A⁴ + n·σ_B⁴), the part with σ_A⁴ for the training of B and the other for that of A. Full fine-tuning has
//! k₁ = 1 at s = 1.

use crate::magnitude::Update;
use crate::schemes::Start;

/// k₁ from the variances of independent entries of A₀ and B₀.
pub fn k1(var_a: f64, var_b: f64, n: usize, m: usize, r: usize) -> f64 {
    r as f64 * (m as f64 * var_a * var_a + n as f64 * var_b * var_b)
}

/// k₁ of given factors, A (r, m) and B (n, r): ‖AAᵀ‖²_F/m + ‖BᵀB‖²_F/n, whatever their entries' distribution; a factor
/// that is not trained takes the other one's part away.
pub fn k1_of_factors(a: &[f32], b: &[f32], n: usize, m: usize, r: usize, train_a: bool, train_b: bool) -> f64 {
    let (of_a, of_b) = Update::new(a, b, None, n, m, r, 1.0).gram_squares();
    let part = |on: bool, squares: f64, len: usize| if on { squares / len as f64 } else { 0.0 };
    part(train_b, of_a, m) + part(train_a, of_b, n)
}

impl Start {
    /// k₁ of this start at s = 1; s⁴·k₁ is what counts in a run.
    pub fn k1(&self) -> f64 {
        let (n, m, r) = (self.recipe.n, self.recipe.m, self.recipe.r);
        k1_of_factors(&self.a, &self.b, n, m, r, self.train_a, self.train_b)
    }
}

/// What k₁ of a scheme can be predicted from without making the start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerFacts<'a> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// ν\[W\].
    pub nu_w: f64,
    /// LoRAM's gain Q\[r\], when it is known.
    pub gain: Option<f64>,
    /// Singular values, descending, when they are known.
    pub sigma: Option<&'a [f64]>,
}

/// k₁ of a scheme (canonical name) by its formula, at s = 1; `None` for an unknown scheme, or when a fact is missing that
/// it needs. LoRAM: Q·(m+n)·ν\[W\]; PiSSA and MiLoRA the same with their own share of the spectrum, over s².
pub fn k1_of_scheme(name: &str, f: &LayerFacts<'_>) -> Option<f64> {
    let (n, m, r) = (f.n as f64, f.m as f64, f.r as f64);
    // triples: ‖AAᵀ‖²_F = Σσ²/s², exactly
    let triples = |sigma: &[f64]| sigma.iter().map(|x| x * x).sum::<f64>() / f.scaling.powi(2) * (1.0 / m + 1.0 / n);
    let base = if name.starts_with("pissa") { "pissa" } else { name };
    Some(match base {
        "lora" | "lora-alpha" => k1(1.0 / (3.0 * m), 0.0, f.n, f.m, f.r),
        "gaussian" => k1(1.0 / (r * r), 0.0, f.n, f.m, f.r),
        "init-ab" => k1(1.0 / (3.0 * m), 1.0 / (3.0 * m), f.n, f.m, f.r),
        // r/2 of r directions, each of variance 1/100: ‖AAᵀ‖²_F = (r/2)·(m/100)²
        "orthogonal" => r / 2.0 * (m + n) / 1e4,
        "loram" => f.gain? * (m + n) * f.nu_w,
        "pissa" => triples(&f.sigma?[..f.r.min(f.sigma?.len())]),
        "milora" => triples(&f.sigma?[f.sigma?.len().saturating_sub(f.r)..]),
        "rlpo" | "rlmo" => r / m,
        "mica" => r / n,
        _ => return None,
    })
}

/// ν\[ΔW\] after `steps` of SGD at rate `lr`, first order in `steps`: s⁴·k₁·lr²·σ_L²·steps. `grad_nu` is ν\[∇_W\] = σ_L².
pub fn sgd(k1: f64, scaling: f64, lr: f64, grad_nu: f64, steps: f64) -> f64 {
    scaling.powi(4) * k1 * lr * lr * grad_nu * steps
}

/// ν of one step of Adam, whose steps have entries of about ±lr: s²·r·(lr_B²·ν\[A\] + lr_A²·ν\[B\]). A factor that is not
/// trained has the rate 0.
pub fn adam_step(scaling: f64, r: usize, lr_a: f64, lr_b: f64, nu_a: f64, nu_b: f64) -> f64 {
    scaling * scaling * r as f64 * (lr_b * lr_b * nu_a + lr_a * lr_a * nu_b)
}

/// The rate at which a run whose magnitude is `own` at rate `lr` reaches `wanted`: magnitudes go with the square of the
/// rate, under SGD and under Adam. NaN when `own` is 0.
pub fn matching_lr(lr: f64, own: f64, wanted: f64) -> f64 {
    lr * (wanted / own).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;
    use crate::{LayerPlan, MatRef, SchemeSpec, Weight, initialize, magnitude};

    #[test]
    fn formulas_agree_with_the_factors() {
        let (n, m, r, s) = (96, 160, 8, 0.5);
        let w: Vec<f32> = Stream::new(5, "w", 0).normals(n * m, 0.02).iter().map(|&x| x as f32).collect();
        let w = MatRef { data: &w, rows: n, cols: m };
        let sigma = crate::singular_values("w", Weight::from(w)).unwrap();
        let without_data = |s: &&crate::SchemeInfo| s.statistic == crate::Statistic::None;
        for scheme in crate::registry().iter().filter(without_data) {
            let name = scheme.name.replace("-k", "-24");
            let spec = SchemeSpec::parse(&name, &Default::default()).unwrap();
            let plan = LayerPlan { path: "x".into(), n, m, r, lora_alpha: s * r as f64, scaling: s };
            let start = initialize(&spec, w, &plan, 1).unwrap();
            let (gain, nu_w) = (start.recipe.gain, magnitude::nu(w.data));
            let facts = LayerFacts { n, m, r, scaling: s, nu_w, gain, sigma: Some(&sigma) };
            let Some(by_formula) = k1_of_scheme(&name, &facts) else {
                assert!(["olora", "loftq"].contains(&name.as_str()), "{name}");
                continue;
            };
            // the entries' sample makes the random ones scatter
            let allowed = if scheme.needs_weight { 1e-3 } else { 0.25 };
            assert!((start.k1() / by_formula - 1.0).abs() < allowed, "{name}: {} {by_formula}", start.k1());
        }
    }

    #[test]
    fn figures_of_the_paper() {
        let facts =
            LayerFacts { n: 4096, m: 4096, r: 16, scaling: 1.0, nu_w: 4e-4, gain: Some(1.0 / 3.0), sigma: None };
        assert!((k1_of_scheme("lora", &facts).unwrap() - 16.0 / (9.0 * 4096.0)).abs() < 1e-15);
        assert!((k1_of_scheme("loram", &facts).unwrap() - 8192.0 * 4e-4 / 3.0).abs() < 1e-12);
        assert!(k1_of_scheme("pissa", &facts).is_none() && k1_of_scheme("nothing", &facts).is_none());
    }

    /// The law itself: SGD on random gradients, ν\[ΔW_t\] against s⁴·k₁·γ·t.
    #[test]
    fn sgd_follows_the_law() {
        let (n, m, r, s, lr, steps) = (60, 80, 6, 1.5, 1e-3, 20);
        let normal = |k: u64, len: usize, std: f64| Stream::new(k, "g", 0).normals(len, std);
        let (a0, b0) = (normal(1, r * m, 0.3), normal(2, n * r, 0.2));
        let (mut a, mut b) = (a0.clone(), b0.clone());
        for t in 0..steps {
            let g = normal(100 + t, n * m, 1.0);
            let (mut da, mut db) = (vec![0.0; r * m], vec![0.0; n * r]);
            for i in 0..n {
                for j in 0..m {
                    for k in 0..r {
                        da[k * m + j] += s * b[i * r + k] * g[i * m + j];
                        db[i * r + k] += s * g[i * m + j] * a[k * m + j];
                    }
                }
            }
            a.iter_mut().zip(da).for_each(|(x, d)| *x -= lr * d);
            b.iter_mut().zip(db).for_each(|(x, d)| *x -= lr * d);
        }
        let f = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let (a32, b32) = (f(&a0), f(&b0));
        let measured = magnitude::nu_update(&f(&a), &f(&b), Some((&a32, &b32)), n, m, r, s);
        let predicted = sgd(k1_of_factors(&a32, &b32, n, m, r, true, true), s, lr, 1.0, steps as f64);
        assert!((measured / predicted - 1.0).abs() < 0.1, "{measured} {predicted}");
        assert!((matching_lr(2e-4, 1.0, 4.0) - 4e-4).abs() < 1e-18);
        assert!((adam_step(2.0, 4, 1e-3, 0.0, 5.0, 0.25) - 4e-6).abs() < 1e-18);
    }
}
