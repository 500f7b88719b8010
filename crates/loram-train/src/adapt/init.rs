//! A new adapter on a model: settings → layers → initial factors → adapters on the layers.

use super::attach::attach;
use super::calibrate::{Calibration, observe, redistribute};
use super::{Adaptation, AdaptedLayer};
use crate::Result;
use crate::config::BaseMode;
use loram_core::{Initialization, LayerPlan, LoraConfig, Observed, Statistic, plan_layers};
use loram_io::adapter::Fingerprint;
use loram_io::family::TensorNames;
use loram_io::init::{InitOptions, InitRecord, InitWeight};
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Lora, Model};
use std::collections::BTreeMap;

/// Initialises adapters on a model: plans the layers, reads each weight, and attaches the factors that the scheme gives.
/// The output of the model does not change. `progress` gets layers done, layers in all, and the current layer.
///
/// Weights are read as `loram init` reads them: for LoRAM in one pass over the checkpoint's file, several layers at a time,
/// with the same bits. A head that the checkpoint does not have is read from the model.
///
/// For a scheme that changes the base, weights held in f32 become `W − s·B₀A₀` in memory; for 16-bit weights A₀ and B₀ are
/// a frozen branch, because rounding the residual would move the model (2e-3 to 2e-2 of ‖W‖ in bf16). `base` decides
/// otherwise.
///
/// A data-driven scheme first runs the model on the calibration data; for the others they may be empty.
pub fn initialize(
    model: &mut Model,
    options: &InitOptions,
    base: BaseMode,
    calibration: Calibration<'_>,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Adaptation> {
    let mut config = options.lora.clone();
    let mut saved = Vec::new();
    for name in config.modules_to_save.iter().flatten() {
        saved.extend(model.add_module_to_save(name)?);
    }
    let mut plans = plan_layers(&config, &model.linears())?;
    let initial = match options.scheme.statistic() {
        Statistic::None => from_weights(model, options, &plans, progress)?,
        _ => from_data(model, options, &mut config, &mut plans, calibration, progress)?,
    };
    let dropout = config.lora_dropout;
    let mut record = InitRecord::new(options, config);
    let mut layers = BTreeMap::new();
    for (plan, init) in plans.iter().zip(initial) {
        let plan = record.add(plan, &init);
        let Initialization { factors, scaling, train_a, train_b, changes_base, .. } = init;
        let initial = changes_base.then(|| factors.clone());
        // β gives A₀ and B₀ of LoRAM again
        let stored = initial.clone().filter(|_| init.recipe.beta.is_none());
        attach(model, &plan.path, Lora { factors, scaling, dropout, train_a, train_b, initial }, base)?;
        layers.insert(plan.path.clone(), AdaptedLayer { plan, changes_base, stored });
    }
    progress(plans.len(), plans.len(), "");
    let (config, recipe) = record.finish(None);
    Ok(Adaptation { config, layers, saved, recipe: Some(recipe) })
}

/// The weight of a layer: from its file, or from the model where it is only there.
fn weight<'m>(model: &'m Model, plan: &LayerPlan) -> loram_nn::Result<InitWeight<'m>> {
    let weight = model.frozen_weight(&plan.path)?;
    Ok(match weight.tensor() {
        Some(tensor) => InitWeight::tensor(tensor.clone()),
        None => InitWeight::Memory(weight.stored()),
    })
}

/// Initialises all layers from their weights alone.
fn from_weights(
    model: &Model,
    options: &InitOptions,
    plans: &[LayerPlan],
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Vec<Initialization>> {
    let mut out = Vec::with_capacity(plans.len());
    let weights = plans.iter().map(|plan| weight(model, plan)).collect::<loram_nn::Result<Vec<_>>>()?;
    options.layers(plans, &weights, |plan, made| {
        progress(out.len(), plans.len(), &plan.path);
        out.push(made.init);
        Ok(())
    })?;
    Ok(out)
}

/// Initialises all layers by a data-driven scheme, before any adapter is on the model. EVA changes the plans.
fn from_data(
    model: &mut Model,
    options: &InitOptions,
    config: &mut LoraConfig,
    plans: &mut Vec<LayerPlan>,
    calibration: Calibration<'_>,
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Vec<Initialization>> {
    let mut out = Vec::new();
    let mut components = Vec::new();
    let layer = |model: &Model, plan: &LayerPlan, observed: Observed| -> Result<Initialization> {
        Ok(options.layer(plan, &weight(model, plan)?, Some(&observed))?)
    };
    observe(model, plans, &options.scheme, calibration, progress, &mut |model, plan, observed| {
        match observed {
            Observed::Components(c) => components.push(c),
            other => out.push(layer(model, plan, other)?),
        }
        Ok(())
    })?;
    if !components.is_empty() {
        redistribute(config, plans, &mut components);
        for (plan, c) in plans.iter().zip(components) {
            out.push(layer(model, plan, Observed::Components(c))?);
        }
    }
    Ok(out)
}

impl Adaptation {
    /// Writes into the recipe the fingerprint of the base under the adapted layers, as far as the checkpoint has them.
    pub fn identify(&mut self, ckpt: &Checkpoint, config: &ModelConfig) -> Result<()> {
        let Some(recipe) = &mut self.recipe else { return Ok(()) };
        let names = TensorNames::find(ckpt, config)?;
        let there = self.layers.keys().filter(|p| ckpt.contains(&names.stored(&format!("{p}.weight"))));
        recipe.base = Some(Fingerprint::of(ckpt, Some(&names), there.map(String::as_str))?);
        Ok(())
    }
}
