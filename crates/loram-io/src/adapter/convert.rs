//! Between the native form of an adapter and the plain one, and to smaller ranks.

use super::{Adapter, AdapterForm, LoraWeights, RECIPE_FILE, STARTS};
use crate::config::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, Error, ModelConfig, Result};
use loram_core::{LayerPlan, MatRef, SchemeSpec};
use serde::Serialize;

/// The weights of a base model by module path, for starts that are made from them.
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

/// What cutting the ranks of an adapter lost.
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

/// Factors A₀ (r, m) and B₀ (n, r) that a layer started with.
pub type InitFactors = (Vec<f32>, Vec<f32>);

impl Adapter {
    /// The start of a layer of a native adapter, made again: from the recipe alone where that suffices, otherwise from
    /// `weight`, the values (n, m) of the untouched base. `None` for a plain adapter.
    ///
    /// Errors: a layer without recipe, a scheme that needs the weight when none is given.
    pub fn start_of(&self, path: &str, weight: Option<&[f32]>) -> Result<Option<InitFactors>> {
        let Some(recipe) = self.recipe.as_ref().filter(|r| r.form == AdapterForm::Native) else { return Ok(None) };
        let missing = |what: String| Error::Usage(format!("layer `{path}`: {what}"));
        let layer = recipe.layers.get(path).ok_or_else(|| missing("the recipe has no entry for it".into()))?;
        if let Some((a, b)) = self.starts.get(path) {
            if (a.len(), b.len()) != (layer.r * layer.m, layer.n * layer.r) {
                return Err(missing(format!("its start in {STARTS} does not have the shape that {RECIPE_FILE} says")));
            }
            return Ok(Some((a.clone(), b.clone())));
        }
        if let Some(start) = loram_core::from_recipe(layer) {
            return Ok(Some(start));
        }
        let Some(data) = weight else {
            return Err(missing(format!(
                "the start of scheme `{}` is made from the base's weights: the base model is needed",
                layer.scheme
            )));
        };
        let spec = SchemeSpec::parse(&layer.scheme, &recipe.options)?;
        let plan = LayerPlan {
            path: layer.path.clone(),
            n: layer.n,
            m: layer.m,
            r: layer.r,
            lora_alpha: self.config.lora_alpha,
            scaling: layer.scaling,
        };
        let start = loram_core::initialize(&spec, MatRef { data, rows: layer.n, cols: layer.m }, &plan, layer.seed)?;
        Ok(Some((start.a, start.b)))
    }

    /// Whether the recipe alone makes every start again, without the base's weights.
    pub fn start_follows_from_recipe(&self) -> bool {
        let all = |r: &super::Recipe| r.layers.values().all(|l| loram_core::from_recipe(l).is_some());
        self.recipe.as_ref().is_none_or(all)
    }

    /// The plain form, of twice the rank: A' = [A; A₀], B' = [B, −B₀], with `lora_alpha` such that the scaling stays.
    /// `weight` gives the untouched base's values of a layer and is called only for schemes that need them. A plain
    /// adapter comes back as it is.
    pub fn to_plain(&self, mut weight: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<Adapter> {
        let mut out = self.clone();
        let Some(recipe) = out.recipe.as_mut().filter(|r| r.form == AdapterForm::Native) else { return Ok(out) };
        recipe.form = AdapterForm::Plain;
        for (path, w) in &mut out.layers {
            let start = match self.start_of(path, None) {
                Err(_) => self.start_of(path, Some(&weight(path)?))?,
                found => found?,
            };
            let Some((a0, b0)) = start else { continue };
            let (a, b) = loram_core::plain_factors(&w.a, &w.b, &a0, &b0, w.n, w.m, w.r);
            *w = LoraWeights { r: 2 * w.r, a, b, ..*w };
        }
        out.starts.clear();
        let c = &mut out.config;
        c.r *= 2;
        c.lora_alpha = loram_core::plain_alpha(c.lora_alpha, c.use_rslora);
        c.rank_pattern.values_mut().for_each(|r| *r *= 2);
        c.alpha_pattern.values_mut().for_each(|a| *a = loram_core::plain_alpha(*a, c.use_rslora));
        Ok(out)
    }

    /// The native form of a plain adapter of twice the rank that was made from one: the halves that hold `A₀` and `−B₀`
    /// are taken off. A native adapter comes back as it is, and so does one whose start leaves the base alone.
    ///
    /// Errors: no recipe, factors that no longer end in the recipe's start (trained further, or cut to a smaller rank).
    pub fn to_native(&self, mut weight: impl FnMut(&str) -> Result<Vec<f32>>) -> Result<Adapter> {
        let mut out = self.clone();
        let Some(recipe) = out.recipe.as_mut() else {
            let what = format!("the adapter has no {RECIPE_FILE}: only adapters that loram started have a native form");
            return Err(Error::Usage(what));
        };
        let changes_base = SchemeSpec::parse(&recipe.scheme, &recipe.options)?.info().changes_base;
        if recipe.form == AdapterForm::Native || !changes_base {
            return Ok(out);
        }
        // starts are made again as those of a native adapter
        recipe.form = AdapterForm::Native;
        let mut as_native = self.clone();
        as_native.recipe.clone_from(&out.recipe);
        halve(&mut as_native.config);
        for (path, w) in &mut out.layers {
            let lost = |what: &str| Error::Usage(format!("layer `{path}` has no native form: {what}"));
            let start = match as_native.start_of(path, None) {
                Err(_) => as_native.start_of(path, Some(&weight(path)?))?,
                found => found?,
            };
            let (a0, b0) = start.ok_or_else(|| lost("its start cannot be made again"))?;
            let r = a0.len() / w.m;
            if w.r != 2 * r || !ends_in_start(w, &a0, &b0) {
                return Err(lost("its factors do not end in the recipe's start, so it was trained further or cut"));
            }
            let b = w.b.chunks_exact(w.r).flat_map(|row| row[..r].iter().copied()).collect();
            *w = LoraWeights { r, a: w.a[..r * w.m].to_vec(), b, ..*w };
        }
        out.config = as_native.config;
        Ok(out)
    }

    /// The same update with every layer's scaling moved into B and every rank filled up with zeros: one rank, `lora_alpha`
    /// equal to it, no patterns and no rsLoRA. Some programs read only `r` and `lora_alpha`. A native adapter must be made
    /// plain first.
    pub fn folded(&self) -> Result<Adapter> {
        if self.form() == AdapterForm::Native {
            return Err(Error::Usage("a native adapter must be made plain before its scaling is moved into B".into()));
        }
        let plans = self.plan()?;
        let mut out = self.clone();
        let rank = self.layers.values().map(|w| w.r).max().unwrap_or(self.config.r);
        for (path, w) in &mut out.layers {
            let s = plans[path].scaling as f32;
            let mut a = w.a.clone();
            a.resize(rank * w.m, 0.0);
            let rows = w.b.chunks_exact(w.r).flat_map(|row| {
                row.iter().map(|x| s * x).chain(std::iter::repeat_n(0.0, rank - w.r)).collect::<Vec<f32>>()
            });
            *w = LoraWeights { r: rank, a, b: rows.collect(), ..*w };
        }
        let c = &mut out.config;
        (c.r, c.lora_alpha, c.use_rslora) = (rank, rank as f64, false);
        c.rank_pattern.clear();
        c.alpha_pattern.clear();
        // the halves are no longer the start's
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
            let whole = plans[path].scaling.powi(2)
                * loram_core::magnitude::nu_product(&w.a, &w.b, w.n, w.m, w.r)
                * (w.n * w.m) as f64;
            all += whole;
            let to = rank.min(w.n).min(w.m);
            if w.r > to {
                let (a, b, error) = loram_core::truncate(&w.a, &w.b, w.n, w.m, w.r, to)?;
                lost += whole * error * error;
                layers.push(TruncatedLayer { path: path.clone(), from: w.r, to, error });
                *w = LoraWeights { r: to, a, b, ..*w };
            }
        }
        // a layer's alpha from its scaling and its new rank; the patterns list what differs from the common values
        let c = &mut out.config;
        let alpha = |c: &loram_core::LoraConfig, path: &str, r: usize| plans[path].scaling / c.scaling(1.0, r);
        let first = out.layers.iter().find(|(_, w)| w.r == rank).or(out.layers.iter().next());
        if let Some((path, w)) = first {
            (c.r, c.lora_alpha) = (w.r, alpha(c, path, w.r));
        }
        c.rank_pattern.clear();
        c.alpha_pattern.clear();
        for (path, w) in &out.layers {
            if w.r != c.r {
                c.rank_pattern.insert(path.clone(), w.r);
            }
            let own = alpha(c, path, w.r);
            if (own / c.lora_alpha - 1.0).abs() > 1e-12 {
                c.alpha_pattern.insert(path.clone(), own);
            }
        }
        let error = if all > 0.0 { (lost / all).sqrt() } else { 0.0 };
        Ok((out, Truncation { error, layers }))
    }
}

/// The configuration at half the rank with the same scaling: the other way of the plain form.
fn halve(c: &mut loram_core::LoraConfig) {
    let factor = loram_core::plain_alpha(1.0, c.use_rslora);
    c.r /= 2;
    c.lora_alpha /= factor;
    c.rank_pattern.values_mut().for_each(|r| *r /= 2);
    c.alpha_pattern.values_mut().for_each(|a| *a /= factor);
}

/// Bits of both slices are equal; −0 and 0 count as equal, because the plain form holds −B₀.
pub(crate) fn same(x: impl Iterator<Item = f32>, y: &[f32]) -> bool {
    x.zip(y).all(|(x, y)| x.to_bits() == y.to_bits() || (x == 0.0 && *y == 0.0))
}

/// Whether the factors of a plain adapter of twice the rank end in A₀ and −B₀.
pub(crate) fn ends_in_start(w: &LoraWeights, a0: &[f32], b0: &[f32]) -> bool {
    let r = w.r / 2;
    let b_tail = w.b.chunks_exact(w.r).flat_map(|row| row[r..].iter().map(|x| -x));
    same(w.a[r * w.m..].iter().copied(), a0) && same(b_tail, b0)
}
