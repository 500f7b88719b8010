//! A fresh start: settings → layers → factors from each weight → adapters on the model.

use super::calibrate::{Calibration, observe, redistribute};
use super::{Adaptation, AdaptedLayer};
use crate::Result;
use crate::config::BaseMode;
use loram_core::{
    Factors, Initialization, LayerInput, LayerPlan, LoraConfig, Observed, SchemeSpec, StoredWeight, initialize,
    plan_layers,
};
use loram_io::adapter::Fingerprint;
use loram_io::config::TensorNames;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Lora, Model};
use std::collections::{BTreeMap, VecDeque};

/// How adapters are started.
#[derive(Debug, Clone)]
pub struct StartOptions {
    /// PEFT's settings; `modules_to_save` are trained whole.
    pub lora: LoraConfig,
    /// The start.
    pub scheme: SchemeSpec,
    /// Seed of random starts.
    pub seed: u64,
    /// How the start is taken off the base.
    pub base: BaseMode,
}

/// Starts adapters on a model: plans the layers, reads each weight, and attaches what the scheme makes of it. The output
/// of the model does not change. `progress` gets layers done, layers in all, and the layer at hand.
///
/// For a scheme that changes the base, weights held in f32 become `W − s·B₀A₀` in memory; for 16-bit weights the start is
/// kept as a frozen branch, because rounding the residual would move the model (2e-3 to 2e-2 of ‖W‖ in bf16).
///
/// A data-driven scheme first runs the model on the calibration data; for the others they may be empty.
pub fn start(
    model: &mut Model,
    options: &StartOptions,
    calibration: Calibration<'_>,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Adaptation> {
    let mut config = options.lora.clone();
    let mut saved = Vec::new();
    for name in config.modules_to_save.iter().flatten() {
        saved.extend(model.add_module_to_save(name)?);
    }
    let mut plans = plan_layers(&config, &model.linears())?;
    let mut made = made_from_data(model, options, &mut config, &mut plans, calibration, progress)?;
    let total = plans.len();
    let mut layers = BTreeMap::new();
    for (i, mut plan) in plans.into_iter().enumerate() {
        progress(i, total, &plan.path);
        let s = match made.pop_front() {
            Some(s) => s,
            None => start_of(model, options, &plan, None)?,
        };
        if s.scaling != plan.scaling {
            // the scheme has a lora_alpha of its own
            plan.lora_alpha *= s.scaling / plan.scaling;
            plan.scaling = s.scaling;
            config.alpha_pattern.insert(plan.path.clone(), plan.lora_alpha);
        }
        let remade = s.changes_base && s.recipe.beta.is_some();
        let layer = AdaptedLayer {
            recipe: Some(s.recipe),
            changes_base: s.changes_base,
            init: (s.changes_base && !remade).then(|| s.factors.clone()),
            plan,
        };
        let new = New { factors: s.factors, train_a: s.train_a, train_b: s.train_b };
        attach(model, &layer, new, config.lora_dropout, options.base)?;
        layers.insert(layer.plan.path.clone(), layer);
    }
    progress(total, total, "");
    Ok(Adaptation {
        config,
        layers,
        saved,
        scheme: Some(options.scheme.to_string()),
        options: options.scheme.options().clone(),
        seed: options.seed,
        base: None,
        labels: None,
    })
}

/// One layer's start.
fn start_of(
    model: &Model,
    options: &StartOptions,
    plan: &LayerPlan,
    observed: Option<&Observed>,
) -> Result<Initialization> {
    let weight = model.weight_f32(&plan.path)?;
    let w = StoredWeight::of(&weight, plan.n, plan.m);
    Ok(initialize(&options.scheme, LayerInput::from(w).observed(observed), plan, options.seed)?)
}

/// Starts of a data-driven scheme, made before any adapter is on the model; none for other schemes. EVA changes the plans.
fn made_from_data(
    model: &mut Model,
    options: &StartOptions,
    config: &mut LoraConfig,
    plans: &mut Vec<LayerPlan>,
    calibration: Calibration<'_>,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<VecDeque<Initialization>> {
    let mut starts = VecDeque::new();
    let mut components = Vec::new();
    observe(model, plans, &options.scheme, calibration, progress, &mut |model, plan, observed| {
        match observed {
            Observed::Components(c) => components.push(c),
            other => starts.push_back(start_of(model, options, plan, Some(&other))?),
        }
        Ok(())
    })?;
    if !components.is_empty() {
        redistribute(config, plans, &mut components);
        for (plan, c) in plans.iter().zip(components) {
            starts.push_back(start_of(model, options, plan, Some(&Observed::Components(c)))?);
        }
    }
    Ok(starts)
}

/// The factors that go on a layer.
pub(super) struct New {
    pub factors: Factors,
    pub train_a: bool,
    pub train_b: bool,
}

/// Puts factors on a layer and takes its start off the base.
pub(super) fn attach(model: &mut Model, layer: &AdaptedLayer, new: New, dropout: f64, base: BaseMode) -> Result<()> {
    let plan = &layer.plan;
    let mut init = layer.init();
    let residual = match base {
        BaseMode::Residual => true,
        BaseMode::Branch => false,
        BaseMode::Auto => model.holds_f32(&plan.path),
    };
    if let Some(init) = init.take_if(|_| residual) {
        model.subtract_product(&plan.path, &init, plan.scaling)?;
    }
    let New { factors, train_a, train_b } = new;
    let lora = Lora { factors, scaling: plan.scaling, dropout, train_a, train_b, initial: init };
    Ok(model.attach(&plan.path, lora)?)
}

/// The fingerprint of the base under these layers, as far as the checkpoint has them.
pub fn fingerprint<'a>(
    ckpt: &Checkpoint,
    config: &ModelConfig,
    paths: impl IntoIterator<Item = &'a str>,
) -> Result<Fingerprint> {
    let names = TensorNames::find(ckpt, config)?;
    let there = paths.into_iter().filter(|p| ckpt.contains(&names.stored(&format!("{p}.weight"))));
    Ok(Fingerprint::of(ckpt, Some(&names), there)?)
}
