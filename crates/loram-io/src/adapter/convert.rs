//! From the native form of an adapter to the plain one, and to smaller ranks.

use super::{Adapter, AdapterForm, LoraWeights};
use crate::{Error, Result};
use loram_core::{LayerPlan, MatRef, SchemeSpec};

/// Factors A₀ (r, m) and B₀ (n, r) that a layer started with.
pub type StartFactors = (Vec<f32>, Vec<f32>);

impl Adapter {
    /// The start of a layer of a native adapter, made again: from the recipe alone where that suffices, otherwise from
    /// `weight`, the values (n, m) of the untouched base. `None` for a plain adapter.
    ///
    /// Errors: a layer without recipe, a scheme that needs the weight when none is given.
    pub fn start_of(&self, path: &str, weight: Option<&[f32]>) -> Result<Option<StartFactors>> {
        let Some(recipe) = self.recipe.as_ref().filter(|r| r.form == AdapterForm::Native) else { return Ok(None) };
        let missing = |what: String| Error::Usage(format!("layer `{path}`: {what}"));
        let layer = recipe.layers.get(path).ok_or_else(|| missing("the recipe has no entry for it".into()))?;
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
        let c = &mut out.config;
        c.r *= 2;
        c.lora_alpha = loram_core::plain_alpha(c.lora_alpha, c.use_rslora);
        c.rank_pattern.values_mut().for_each(|r| *r *= 2);
        c.alpha_pattern.values_mut().for_each(|a| *a = loram_core::plain_alpha(*a, c.use_rslora));
        Ok(out)
    }

    /// The nearest adapter of rank at most `rank`, per layer by SVD of B·A, and the relative error ‖ΔW − ΔW'‖/‖ΔW‖ of
    /// each layer that became smaller. Scalings stay. A native adapter must be made plain first.
    pub fn truncated(&self, rank: usize) -> Result<(Adapter, Vec<(String, f64)>)> {
        if self.form() == AdapterForm::Native {
            return Err(Error::Usage("a native adapter must be made plain before its rank is reduced".into()));
        }
        if rank == 0 {
            return Err(Error::Usage("the rank must be at least 1, found 0".into()));
        }
        let plans = self.plan()?;
        let mut out = self.clone();
        let mut errors = Vec::new();
        for (path, w) in &mut out.layers {
            let to = rank.min(w.n).min(w.m);
            if w.r > to {
                let (a, b, error) = loram_core::truncate(&w.a, &w.b, w.n, w.m, w.r, to)?;
                *w = LoraWeights { r: to, a, b, ..*w };
                errors.push((path.clone(), error));
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
        Ok((out, errors))
    }
}
