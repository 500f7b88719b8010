//! An adapter in the other form, plain or native (`loram_core`'s `convert.rs` says what they are), with one scaling, or
//! with smaller ranks.

use super::folder::INIT_FACTORS;
use super::in_memory::Adapter;
use super::recipe::{AdapterForm, RECIPE_FILE, Recipe};
use crate::family::TensorNames;
use crate::init::{InitWeight, recompute_factors};
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, Error, ModelConfig, Result};
use loram_core::{Factors, LoraConfig, SchemeSpec, StoredWeight};
use serde::Serialize;

/// The weights of a base model by module path, for initial factors that are computed from them.
pub struct BaseWeights<'a> {
    checkpoint: &'a Checkpoint,
    names: TensorNames,
}

impl<'a> BaseWeights<'a> {
    /// The weights of a checkpoint.
    pub fn new(checkpoint: &'a Checkpoint, config: &ModelConfig) -> Result<BaseWeights<'a>> {
        Ok(BaseWeights { checkpoint, names: TensorNames::find(checkpoint, config)? })
    }

    /// Values (n, m) of a linear layer's weight, row-major.
    pub fn of(&self, path: &str) -> Result<Vec<f32>> {
        LayerWeight::find(self.checkpoint, &self.names, path)?.values()
    }
}

/// The loss of cutting the ranks of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Truncation {
    /// ‖ΔW − ΔW'‖/‖ΔW‖ over all layers together, those that were not cut included.
    pub error: f64,
    /// Layers that became smaller.
    pub layers: Vec<TruncatedLayer>,
}

/// A layer that became smaller.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TruncatedLayer {
    /// Module path.
    pub path: String,
    /// Rank before.
    pub from: usize,
    /// Rank now.
    pub to: usize,
    /// ‖ΔW − ΔW'‖/‖ΔW‖ of this layer.
    pub error: f64,
}

impl Adapter {
    /// The initial factors of a layer of a native adapter: as stored, or recomputed from the recipe where that suffices,
    /// otherwise from `weight`, the values (n, m) of the untouched base. `None` for a plain adapter.
    ///
    /// Errors: a layer without recipe, a scheme that needs the weight when none is given.
    pub fn init_of(&self, path: &str, weight: Option<&[f32]>) -> Result<Option<Factors>> {
        let Some(recipe) = self.recipe.as_ref().filter(|r| r.form == AdapterForm::Native) else { return Ok(None) };
        let missing = |what: String| Error::Usage(format!("layer `{path}`: {what}"));
        let layer = recipe.layers.get(path).ok_or_else(|| missing("the recipe has no entry for it".into()))?;
        if let Some(init) = self.init_factors.get(path) {
            if (init.n, init.m, init.r) != (layer.n, layer.m, layer.r) || init.check().is_err() {
                let what = format!("its factors in {INIT_FACTORS} do not have the shape that {RECIPE_FILE} says");
                return Err(missing(what));
            }
            return Ok(Some(init.clone()));
        }
        let weight = || Ok(weight.map(|w| InitWeight::memory(StoredWeight::of(w, layer.n, layer.m))));
        recompute_factors(layer, recipe, self.config.use_rslora, weight).map(Some)
    }

    /// Returns whether the recipe alone gives the initial factors of every layer, without the base's weights.
    pub fn init_follows_from_recipe(&self) -> bool {
        let all = |r: &Recipe| r.layers.values().all(|l| loram_core::from_recipe(l).is_some());
        self.recipe.as_ref().is_none_or(all)
    }

    /// The plain form, of twice the rank. `weight` gives the untouched base's values of a layer and is called only for
    /// schemes that need them. A plain adapter is returned as it is.
    pub fn to_plain(&self, mut weight: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<Adapter> {
        let mut out = self.clone();
        let Some(recipe) = out.recipe.as_mut().filter(|r| r.form == AdapterForm::Native) else { return Ok(out) };
        recipe.form = AdapterForm::Plain;
        for (path, w) in &mut out.layers {
            let init = match self.init_of(path, None) {
                Err(_) => self.init_of(path, Some(&weight(path)?))?,
                found => found?,
            };
            if let Some(init) = init {
                *w = w.plain(&init);
            }
        }
        out.init_factors.clear();
        out.config = out.config.plain();
        Ok(out)
    }

    /// The native form of a plain adapter of twice the rank that was made from one. `weight` is as for
    /// [`Adapter::to_plain`]. A native adapter is returned as it is, and so is one whose scheme leaves the base alone.
    ///
    /// Errors: no recipe, factors that no longer end in the initial ones (trained further, or cut to a smaller rank).
    pub fn to_native(&self, mut weight: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<Adapter> {
        let mut out = self.clone();
        let Some(recipe) = out.recipe.as_mut() else {
            let what = format!("the adapter has no {RECIPE_FILE}: only adapters made by loram have a native form");
            return Err(Error::Usage(what));
        };
        let changes_base = SchemeSpec::parse(&recipe.scheme, &recipe.options)?.info().changes_base;
        if recipe.form == AdapterForm::Native || !changes_base {
            return Ok(out);
        }
        if self.config.ensure_weight_tying {
            // a head that has the embedding's adapter gets it again from that
            let embeddings: Vec<&Factors> = self.embeddings.iter().filter_map(|path| self.layers.get(path)).collect();
            let follows = |w: &Factors| embeddings.iter().any(|e| e.same_bits(w));
            out.layers.retain(|path, w| self.embeddings.contains(path) || !follows(w));
        }
        // initial factors are recomputed as those of a native adapter
        recipe.form = AdapterForm::Native;
        let as_native = Adapter { config: self.config.native(), recipe: out.recipe.clone(), ..self.clone() };
        for (path, w) in &mut out.layers {
            let lost = |what: &str| Error::Usage(format!("layer `{path}` has no native form: {what}"));
            let init = match as_native.init_of(path, None) {
                Err(_) => as_native.init_of(path, Some(&weight(path)?))?,
                found => found?,
            };
            let init = init.ok_or_else(|| lost("its initial factors cannot be recomputed"))?;
            *w = w.native(&init).ok_or_else(|| {
                lost("its factors do not end in the recipe's initial ones, so it was trained further or cut")
            })?;
        }
        out.config = as_native.config;
        Ok(out)
    }

    /// The same update with every layer's scaling multiplied into B and every rank filled up with zeros: one rank,
    /// `lora_alpha` equal to it, no patterns and no rsLoRA. Some programs read only `r` and `lora_alpha`. A native adapter
    /// must be made plain first.
    pub fn folded(&self) -> Result<Adapter> {
        if self.form() == AdapterForm::Native {
            let what = "a native adapter must be made plain before its scaling is multiplied into B";
            return Err(Error::Usage(what.into()));
        }
        let plans = self.plan()?;
        let mut out = self.clone();
        let rank = self.layers.values().map(|w| w.r).max().unwrap_or(self.config.r);
        for (path, w) in &mut out.layers {
            *w = w.folded(plans[path].scaling, rank);
            if let Some(bias) = out.biases.get_mut(path) {
                bias.iter_mut().for_each(|b| *b = (f64::from(*b) * plans[path].scaling) as f32);
            }
        }
        let c = &mut out.config;
        (c.r, c.lora_alpha, c.use_rslora) = (rank, rank as f64, false);
        c.set_ranks([]);
        c.set_alphas([]);
        // the second halves are no longer the initial factors
        out.recipe = None;
        Ok(out)
    }

    /// The nearest adapter of rank at most `rank`, per layer by SVD of B·A, with what that loses. Scalings stay. A native
    /// adapter must be made plain first.
    pub fn truncated(&self, rank: usize) -> Result<(Adapter, Truncation)> {
        if self.form() == AdapterForm::Native {
            return Err(Error::Usage("a native adapter must be made plain before its rank is reduced".into()));
        }
        if rank == 0 {
            return Err(Error::Usage("the rank must be at least 1, found 0".into()));
        }
        let plans = self.plan()?;
        let mut out = self.clone();
        let mut layers = Vec::new();
        let (mut lost, mut all) = (0.0, 0.0);
        for (path, w) in &mut out.layers {
            let whole = plans[path].scaling.powi(2) * w.nu() * (w.n * w.m) as f64;
            all += whole;
            let to = rank.min(w.n).min(w.m);
            if w.r > to {
                let (cut, error) = w.truncated(to)?;
                lost += whole * error * error;
                layers.push(TruncatedLayer { path: path.clone(), from: w.r, to, error });
                *w = cut;
            }
        }
        // a layer's alpha follows from its scaling and its new rank
        let c = &mut out.config;
        let alpha = |c: &LoraConfig, path: &str, r: usize| plans[path].scaling / c.scaling(1.0, r);
        let first = out.layers.iter().find(|(_, w)| w.r == rank).or(out.layers.iter().next());
        if let Some((path, w)) = first {
            (c.r, c.lora_alpha) = (w.r, alpha(c, path, w.r));
        }
        let common = c.lora_alpha;
        let alphas: Vec<f64> = out.layers.iter().map(|(path, w)| alpha(c, path, w.r)).collect();
        let rounded = alphas.iter().map(|own| if (own / common - 1.0).abs() > 1e-12 { *own } else { common });
        c.set_ranks(out.layers.iter().map(|(path, w)| (path.as_str(), w.r)));
        c.set_alphas(out.layers.keys().map(String::as_str).zip(rounded));
        let error = if all > 0.0 { (lost / all).sqrt() } else { 0.0 };
        Ok((out, Truncation { error, layers }))
    }
}
