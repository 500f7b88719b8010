//! The trained factors of a model as an adapter that can be written.

use super::Adaptation;
use crate::Result;
use loram_core::{LoraConfig, plain_alpha, plain_factors};
use loram_io::adapter::{Adapter, AdapterForm, LoraWeights, Recipe, SavedTensor};
use loram_nn::{Model, ParamKind};
use std::path::Path;

/// What an adapter folder says beside its weights.
#[derive(Debug, Clone)]
pub struct ExportInfo {
    /// The base as the user named it.
    pub base_model: String,
    /// Revision on the hub.
    pub revision: Option<String>,
    /// `CAUSAL_LM` or `SEQ_CLS`.
    pub task_type: &'static str,
}

impl Adaptation {
    /// The adapter as it is now on `model`. The plain form of a scheme that changes its base has twice the rank,
    /// `A' = [A; A₀]`, `B' = [B, −B₀]`, and the same scaling; other adapters are plain as they are.
    pub fn export(&self, model: &Model, form: AdapterForm, info: &ExportInfo) -> Result<Adapter> {
        let double = form == AdapterForm::Plain && self.changes_base();
        let config = if double { doubled(&self.config) } else { self.config.clone() };
        let mut adapter = Adapter::new(config, info.task_type, Some(info.base_model.clone()));
        adapter.revision = info.revision.clone();
        for (path, layer) in &self.layers {
            let (n, m, r) = (layer.plan.n, layer.plan.m, layer.plan.r);
            let Some((a, b)) = model.factors(path) else { continue };
            let weights = match layer.start().filter(|_| double) {
                Some((a0, b0)) => {
                    let (a, b) = plain_factors(&a, &b, &a0, &b0, n, m, r);
                    LoraWeights { n, m, r: 2 * r, a, b }
                }
                None => LoraWeights { n, m, r, a, b },
            };
            adapter.layers.insert(path.clone(), weights);
        }
        for p in model.params().iter().filter(|p| p.kind == ParamKind::Saved) {
            adapter.saved.insert(p.name.clone(), SavedTensor { shape: p.shape.clone(), values: p.value.to_f32_vec() });
        }
        if let Some(scheme) = &self.scheme {
            let form = if self.changes_base() { form } else { AdapterForm::Plain };
            let mut recipe = Recipe::new(form, scheme, self.seed);
            recipe.options = self.options.clone();
            recipe.labels = self.labels.clone();
            let layers = self.layers.iter().filter_map(|(p, l)| Some((p.clone(), l.recipe.clone()?)));
            recipe.layers = layers.collect();
            recipe.base = self.base.clone();
            adapter.recipe = Some(recipe);
        }
        if adapter.form() == AdapterForm::Native {
            adapter.starts = self.stored_starts();
        }
        Ok(adapter)
    }

    /// Writes the adapter folder. A native adapter whose start the recipe alone cannot make again brings it along in
    /// `start.safetensors`.
    pub fn save(&self, model: &Model, form: AdapterForm, info: &ExportInfo, dir: &Path) -> Result<()> {
        Ok(self.export(model, form, info)?.write(dir)?)
    }
}

/// The configuration at twice the rank with the same scaling.
fn doubled(config: &LoraConfig) -> LoraConfig {
    let alpha = |a: f64| plain_alpha(a, config.use_rslora);
    LoraConfig {
        r: 2 * config.r,
        lora_alpha: alpha(config.lora_alpha),
        rank_pattern: config.rank_pattern.iter().map(|(k, r)| (k.clone(), 2 * r)).collect(),
        alpha_pattern: config.alpha_pattern.iter().map(|(k, a)| (k.clone(), alpha(*a))).collect(),
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loram_core::{LinearInfo, plan_layers};

    #[test]
    fn scaling_stays_at_twice_the_rank() {
        for use_rslora in [false, true] {
            let mut config = LoraConfig { r: 4, lora_alpha: 6.0, use_rslora, ..LoraConfig::default() };
            config.rank_pattern.insert("k".into(), 2);
            config.alpha_pattern.insert("v".into(), 3.0);
            let linears: Vec<LinearInfo> = ["a.q", "a.k", "a.v"]
                .map(|p| LinearInfo { path: p.into(), n: 32, m: 32, output_layer: false })
                .to_vec();
            let before = plan_layers(&config, &linears).unwrap();
            let after = plan_layers(&doubled(&config), &linears).unwrap();
            for (x, y) in before.iter().zip(&after) {
                assert_eq!(2 * x.r, y.r);
                assert!((x.scaling - y.scaling).abs() < 1e-12, "{} {} {}", x.path, x.scaling, y.scaling);
            }
        }
    }
}
