//! A new adapter on a model: settings → layers → initial factors → adapters on the layers.

use super::attach::attach;
use super::calibrate::{Calibration, observe, redistribute};
use super::{Adaptation, AdaptedLayer, tokens};
use crate::config::BaseMode;
use crate::{Error, Result};
use loram_core::{Initialization, LayerPlan, LinearInfo, LoraConfig, Observed, Statistic, TargetModules, plan_layers};
use loram_io::adapter::Fingerprint;
use loram_io::family::TensorNames;
use loram_io::init::{InitOptions, InitRecord, InitWeight, LayerInit};
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
    if config.ensure_weight_tying {
        name_embedding(model, &mut config);
    }
    let mut saved = Vec::new();
    for name in config.modules_to_save.iter().flatten() {
        saved.extend(model.add_module_to_save(name)?);
    }
    let embedding = model.embedding_path().to_string();
    if let Some(tokens) = &config.trainable_token_indices {
        tokens::train(model, tokens, &embedding)?;
    }
    let mut plans = plan_layers(&config, &targets(model, &config))?;
    let initial = match options.scheme.statistic() {
        Statistic::None => from_weights(model, options, &plans, progress)?,
        _ => from_data(model, options, &mut config, &mut plans, calibration, progress)?,
    };
    let (dropout, lora_bias) = (config.lora_dropout, config.lora_bias);
    let ties = tokens::ties_head(config.ensure_weight_tying, config.trainable_token_indices.as_ref(), &embedding);
    let mut record = InitRecord::new(options, config);
    let mut layers = BTreeMap::new();
    for (plan, LayerInit { init, digest, .. }) in plans.iter().zip(initial) {
        let plan = record.add(plan, &init);
        let Initialization { factors, scaling, train_a, train_b, changes_base, weight_norm, .. } = init;
        let bias = lora_bias.then(|| vec![0.0; factors.n]);
        let initial = changes_base.then(|| factors.clone());
        // β gives A₀ and B₀ of LoRAM again
        let stored = if init.recipe.beta.is_none() { initial.clone() } else { None };
        attach(model, &plan.path, Lora { factors, scaling, bias, dropout, train_a, train_b, initial }, base)?;
        layers.insert(plan.path.clone(), AdaptedLayer { plan, changes_base, stored, digest, weight_norm });
    }
    if ties {
        model.tie_head(dropout)?;
    }
    progress(plans.len(), plans.len(), "");
    let (config, recipe) = record.finish(None);
    Ok(Adaptation { config, layers, saved, recipe: Some(recipe) })
}

/// A head that shares the embedding's weight is adapted or trained as the embedding: settings that name it name that, as in
/// PEFT.
fn name_embedding(model: &Model, config: &mut LoraConfig) {
    let Some((head, embedding)) = model.tied_head() else { return };
    let rename = |names: &mut Vec<String>| {
        if names.iter().any(|name| name == head) {
            names.retain(|name| name != head && name != embedding);
            names.push(embedding.to_string());
        }
    };
    if let TargetModules::Names(names) = &mut config.target_modules {
        rename(names);
    }
    if let Some(names) = &mut config.modules_to_save {
        rename(names);
    }
}

/// The modules that may get an adapter: with `ensure_weight_tying` a head that shares the embedding's weight gets that of the
/// embedding, which stands for both, as in PEFT.
fn targets(model: &Model, config: &LoraConfig) -> Vec<LinearInfo> {
    let mut targets = model.targets();
    if let Some((head, _)) = model.tied_head().filter(|_| config.ensure_weight_tying) {
        targets.retain(|t| t.path != head);
    }
    targets
}

/// The weight of a layer: from its file, or from the model where it is only there.
fn weight<'m>(model: &'m Model, plan: &LayerPlan) -> loram_nn::Result<InitWeight<'m>> {
    let weight = model.frozen_weight(&plan.path)?;
    let weight = match weight.tensor() {
        Some(tensor) => InitWeight::tensor(tensor.clone()),
        None => InitWeight::memory(weight.stored()),
    };
    Ok(weight.of_embedding(model.is_embedding(&plan.path)))
}

/// Initialises all layers from their weights alone.
fn from_weights(
    model: &Model,
    options: &InitOptions,
    plans: &[LayerPlan],
    progress: &mut dyn FnMut(usize, usize, &str),
) -> Result<Vec<LayerInit>> {
    let mut out = Vec::with_capacity(plans.len());
    let weights = plans.iter().map(|plan| weight(model, plan)).collect::<loram_nn::Result<Vec<_>>>()?;
    options.layers(plans, &weights, |plan, made| {
        progress(out.len(), plans.len(), &plan.path);
        out.push(made);
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
) -> Result<Vec<LayerInit>> {
    if let Some(plan) = plans.iter().find(|plan| model.is_embedding(&plan.path)) {
        let (scheme, path) = (&options.scheme, &plan.path);
        let what = format!(
            "`{scheme}` is initialised from what linear layers see of data, and `{path}` is an embedding: take another scheme, or leave it out of target_modules"
        );
        return Err(Error::Config(what));
    }
    let mut out = Vec::new();
    let mut components = Vec::new();
    let layer = |model: &Model, plan: &LayerPlan, observed: Observed| -> Result<LayerInit> {
        let init = options.layer(plan, &weight(model, plan)?, Some(&observed))?;
        Ok(LayerInit { init, digest: None, bytes: 0 })
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
    /// Writes into the recipe the fingerprint of the base under the adapted layers, as far as the checkpoint has them, and into the settings
    /// that its weights are stored transposed where they are.
    pub fn identify(&mut self, ckpt: &Checkpoint, config: &ModelConfig) -> Result<()> {
        let names = TensorNames::find(ckpt, config)?;
        self.config.fan_in_fan_out |= self.layers.keys().any(|path| names.is_transposed(path));
        let Some(recipe) = &mut self.recipe else { return Ok(()) };
        let there = self.layers.keys().filter(|p| ckpt.contains(&names.stored(&format!("{p}.weight"))));
        let digests = self.layers.iter().filter_map(|(path, l)| Some((path.clone(), l.digest.clone()?)));
        let known = Fingerprint::new(digests.collect());
        recipe.base = Some(known.of_layers(ckpt, Some(&names), there.map(String::as_str))?);
        Ok(())
    }
}
