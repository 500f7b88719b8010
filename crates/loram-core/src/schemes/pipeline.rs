//! From a spec and what is known of a layer to its factors, and from a recipe back to them.

use super::context::Context;
use super::factors::{Scale, SchemeFactors};
use super::input::{Given, LayerInput, WeightUse};
use super::observed::Statistic;
use super::option::SchemeOptions;
use super::recipe::LayerRecipe;
use super::spec::SchemeSpec;
use crate::factors::Factors;
use crate::sketch::sketch;
use crate::targets::LayerPlan;
use crate::weight::{StoredWeight, WeightBytes};
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;

/// The initialised adapter of one layer.
#[derive(Debug, Clone)]
pub struct Initialization {
    /// A₀ and B₀.
    pub factors: Factors,
    /// B₀A₀ ≠ 0: then the base has to become W − s·B₀A₀ ([`crate::residual`]) for the model's output to stay.
    pub changes_base: bool,
    /// Factor on B·A: the plan's, unless the scheme sets `lora_alpha` itself.
    pub scaling: f64,
    /// The `lora_alpha` that belongs to it: the plan's, unless the scheme sets it.
    pub lora_alpha: f64,
    /// True when A is trained.
    pub train_a: bool,
    /// True when B is trained.
    pub train_b: bool,
    /// How it was made.
    pub recipe: LayerRecipe,
    /// ‖W‖_F, where it was known or one pass over the weight has shown it.
    pub weight_norm: Option<f64>,
}

/// Initialises the adapter of one layer from its weight, or whatever else is known of it ([`LayerInput`]). A weight in 16
/// bits is not converted for a scheme that does not read more than its sums.
///
/// Deterministic in (input, plan, seed), whatever the number of threads and the order of layers. Errors name the layer: a
/// weight that is not finite or has another shape, less of it than the scheme reads, a rank that the scheme cannot have, a
/// data-driven scheme without its statistic or with one of another kind or shape.
pub fn initialize<'a>(
    spec: &SchemeSpec,
    layer: impl Into<LayerInput<'a>>,
    plan: &LayerPlan,
    seed: u64,
) -> Result<Initialization> {
    let layer = layer.into();
    layer.check(spec, plan)?;
    plan.check_rank()?;
    if layer.embedding && spec.statistic() != Statistic::None {
        let what = format!(
            "`{spec}` is initialised from the inputs of a linear layer or the gradient of its weight: it is not for embeddings"
        );
        return Err(Error::layer(&plan.path, what));
    }
    let plan = spec.adjust(plan)?;
    let mut f = factors(spec, &layer, &plan, seed)?;
    let SchemeOptions { init_scale_a, init_scale_b, .. } = *spec.options();
    f.multiply(init_scale_a, init_scale_b);
    let from_shape = spec.behaviour().weight == WeightUse::Shape && spec.statistic() == Statistic::None;
    let recipe = LayerRecipe {
        scheme: spec.to_string(),
        path: plan.path.clone(),
        n: plan.n,
        m: plan.m,
        r: plan.r,
        scaling: plan.scaling,
        seed,
        init_scale_a,
        init_scale_b,
        beta: f.scale.map(|s| s.beta),
        gain: f.scale.and_then(|s| s.gain),
        basis: f.scale.map(|s| s.basis),
        embedding: layer.embedding,
        options: if from_shape { spec.options().values.clone() } else { BTreeMap::<String, Value>::new() },
    };
    Ok(Initialization {
        changes_base: spec.info().changes_base,
        scaling: plan.scaling,
        lora_alpha: plan.lora_alpha,
        train_a: f.train_a,
        train_b: f.train_b,
        factors: f.of(&plan),
        recipe,
        weight_norm: layer.norm(),
    })
}

/// The factors of a scheme, before the options' scales.
fn factors(spec: &SchemeSpec, input: &LayerInput<'_>, plan: &LayerPlan, seed: u64) -> Result<SchemeFactors> {
    (spec.info().init)(&context(spec, input, plan, seed)?)
}

fn context<'a>(spec: &'a SchemeSpec, input: &'a LayerInput<'a>, plan: &'a LayerPlan, seed: u64) -> Result<Context<'a>> {
    Ok(Context {
        name: spec.to_string(),
        number: spec.number(),
        options: spec.options(),
        statistic: spec.statistic(),
        plan,
        seed,
        input,
        tracked: spec.tracked().map(|tracked| factors(tracked, input, plan, seed)).transpose()?,
    })
}

/// A₀ and B₀ of a recipe, bit for bit as they were. `None` when they need the weight (the schemes that
/// decompose it) or calibration data, or when the recipe is none that this crate writes.
pub fn from_recipe(recipe: &LayerRecipe) -> Option<Factors> {
    let LayerRecipe { n, m, r, seed, .. } = *recipe;
    let options = SchemeOptions { values: recipe.options.clone(), ..SchemeOptions::default() };
    let spec = SchemeSpec::parse(&recipe.scheme, &options).ok()?;
    let plan = LayerPlan { path: recipe.path.clone(), n, m, r, lora_alpha: 0.0, scaling: recipe.scaling };
    plan.check_rank().ok()?;
    // a recipe is a file from elsewhere: no allocation that no layer can need
    (n.checked_add(m)?.checked_mul(r)? < 1 << 34).then_some(())?;
    let kept = recipe.beta.filter(|b| b.is_finite()).zip(recipe.basis);
    let kept = kept.map(|(beta, basis)| Scale { beta, gain: recipe.gain, basis });
    let from_shape = spec.behaviour().weight == WeightUse::Shape && spec.statistic() == Statistic::None;
    let mut f = match (spec.info().recompute, kept) {
        (Some(recompute), Some(kept)) => recompute(&plan, seed, &kept),
        _ if from_shape => factors(&spec, &LayerInput::shape().of_embedding(recipe.embedding), &plan, seed).ok()?,
        _ => return None,
    };
    f.multiply(recipe.init_scale_a, recipe.init_scale_b);
    Some(f.of(&plan))
}

/// The base (n, m) on which the factors of weight W are a plain adapter, for schemes where that is not W − s·B₀A₀: LoftQ's
/// quantised weight, dequantised. `None` for other schemes. Errors: as those of [`initialize`].
pub fn quantised_base<'a>(
    spec: &SchemeSpec,
    layer: impl Into<LayerInput<'a>>,
    plan: &LayerPlan,
) -> Result<Option<Vec<f32>>> {
    let Some(base) = spec.info().plain_base else { return Ok(None) };
    let layer = layer.into();
    layer.check(spec, plan)?;
    base(&context(spec, &layer, plan, 0)?).map(Some)
}

impl<'a> LayerInput<'a> {
    /// As much as the scheme reads of a weight (plan.n, plan.m), in one pass over its bytes, for schemes with
    /// [`SchemeSpec::one_pass`]; its shape alone for others. The error is that of the bytes.
    pub fn read<B: WeightBytes>(
        spec: &SchemeSpec,
        w: &StoredWeight<'_, B>,
        plan: &LayerPlan,
        seed: u64,
    ) -> std::result::Result<LayerInput<'a>, B::Error> {
        let weight = match spec.behaviour().weight {
            _ if (w.rows(), w.cols()) != (plan.n, plan.m) => Given::Wrong(w.rows(), w.cols()),
            WeightUse::Sums => Given::Sums(w.try_sums()?),
            WeightUse::Sketch => Given::Sketch(sketch(&plan.path, w, seed)?),
            WeightUse::Shape | WeightUse::Values => Given::Shape,
        };
        Ok(LayerInput { weight, observed: None, embedding: false })
    }

    /// An error unless this is of a layer (plan.n, plan.m) and as much of it as the scheme reads.
    fn check(&self, spec: &SchemeSpec, plan: &LayerPlan) -> Result<()> {
        let (n, m) = (plan.n, plan.m);
        let needs = spec.behaviour().weight;
        let what = match &self.weight {
            Given::Values(w) if (w.rows(), w.cols()) != (n, m) => {
                format!("expected a weight ({n}, {m}), found ({}, {})", w.rows(), w.cols())
            }
            Given::Wrong(rows, cols) => format!("expected a weight ({n}, {m}), found ({rows}, {cols})"),
            Given::Sums(_) if needs > WeightUse::Sums => {
                format!("`{spec}` with these options needs the weight, not only its sums")
            }
            Given::Shape if needs > WeightUse::Shape => {
                format!("`{spec}` with these options needs the weight in memory")
            }
            Given::Sketch(_) if needs > WeightUse::Sketch => {
                format!("`{spec}` with these options needs the weight in memory")
            }
            _ => return Ok(()),
        };
        Err(Error::layer(&plan.path, what))
    }
}
