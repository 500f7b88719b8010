//! The pipeline of every initialisation: from weights and plans to factors, settings and recipe. `loram init` runs it over
//! a checkpoint and writes the factors as they come; training runs it over the weights of its model.

use super::layers::each;
use super::weight::InitWeight;
use crate::adapter::{AdapterForm, Fingerprint, Recipe};
use crate::{Error, Result};
use loram_core::{Initialization, LayerPlan, LoraConfig, Observed, SchemeSpec};
use std::collections::BTreeMap;

/// The settings of an initialisation.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// PEFT's settings.
    pub lora: LoraConfig,
    /// The scheme with its options.
    pub scheme: SchemeSpec,
    /// Seed of random factors.
    pub seed: u64,
}

/// An initialised layer.
pub struct LayerInit {
    /// Its factors, and how they were computed.
    pub init: Initialization,
    /// The [`Fingerprint`] entry of its weight, where that is in a checkpoint.
    pub digest: Option<String>,
    /// Bytes of its weight in the checkpoint.
    pub bytes: u64,
}

impl InitOptions {
    /// An error when modules are to be saved: an adapter that is only initialised has none.
    pub fn refuse_saved_modules(&self) -> Result<()> {
        match self.lora.modules_to_save.iter().flatten().next() {
            None => Ok(()),
            Some(_) => {
                let what = "modules_to_save: fully trained modules are not initialised; give them when training";
                Err(Error::Usage(what.into()))
            }
        }
    }

    /// Initialises one layer; `observed` is for data-driven schemes.
    pub fn layer(
        &self,
        plan: &LayerPlan,
        weight: &InitWeight<'_>,
        observed: Option<&Observed>,
    ) -> Result<Initialization> {
        weight.initialize(&self.scheme, plan, self.seed, observed)
    }

    /// Initialises the layers of `plans`, whose weights are `weights`, as many at a time as there are threads, and gives the
    /// results to `take` on the calling thread, in order. The bits do not depend on the number of threads, and no more
    /// layers are in memory than threads. Pages of mapped weights are released. The error is that of the first layer that
    /// fails.
    pub fn layers(
        &self,
        plans: &[LayerPlan],
        weights: &[InitWeight<'_>],
        mut take: impl FnMut(&LayerPlan, LayerInit) -> Result<()>,
    ) -> Result<()> {
        let layers: Vec<(&LayerPlan, &InitWeight<'_>)> = plans.iter().zip(weights).collect();
        let make = |&(plan, weight): &(&LayerPlan, &InitWeight<'_>)| {
            let init = self.layer(plan, weight, None)?;
            let tensor = weight.in_checkpoint();
            let made = LayerInit {
                init,
                digest: tensor.filter(|t| !t.transposed).map(Fingerprint::digest),
                bytes: tensor.map_or(0, |t| t.bytes().len() as u64),
            };
            if let Some(tensor) = tensor {
                tensor.release();
            }
            Ok(made)
        };
        each(&layers, make, |i, made| take(&plans[i], made))
    }
}

/// The result of an initialisation beside the factors: the settings, including those that the scheme changed, and the recipe.
pub struct InitRecord {
    config: LoraConfig,
    recipe: Recipe,
    alphas: BTreeMap<String, f64>,
    own_alphas: bool,
}

impl InitRecord {
    /// A record without layers. `config` are the settings of `options`, with the ranks that were chosen.
    pub fn new(options: &InitOptions, config: LoraConfig) -> InitRecord {
        let mut recipe = Recipe::new(AdapterForm::Plain, options.scheme.to_string(), options.seed);
        recipe.options = options.scheme.options().clone();
        InitRecord { config, recipe, alphas: BTreeMap::new(), own_alphas: false }
    }

    /// Adds a layer and returns its plan, with the `lora_alpha` that the scheme sets where it does.
    pub fn add(&mut self, plan: &LayerPlan, init: &Initialization) -> LayerPlan {
        self.own_alphas |= init.scaling != plan.scaling;
        self.alphas.insert(plan.path.clone(), init.lora_alpha);
        if init.changes_base {
            self.recipe.form = AdapterForm::Native;
        }
        self.recipe.layers.insert(plan.path.clone(), init.recipe.clone());
        LayerPlan { scaling: init.scaling, lora_alpha: init.lora_alpha, ..plan.clone() }
    }

    /// The settings and the recipe; `base` identifies the weights.
    pub fn finish(mut self, base: Option<Fingerprint>) -> (LoraConfig, Recipe) {
        if self.own_alphas {
            self.config.set_alphas(self.alphas.iter().map(|(path, alpha)| (path.as_str(), *alpha)));
        }
        self.recipe.base = base;
        (self.config, self.recipe)
    }
}
