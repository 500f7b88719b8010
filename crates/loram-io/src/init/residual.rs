//! The residual checkpoint of a start: `W − s·B₀·A₀` in place of every target, all else copied. With it, the factors are a
//! plain adapter that any trainer can go on with.
//!
//! The product is computed in f32 from the factors as they are stored and taken off in f32; the result is rounded once
//! (2507.06558's order, with the smaller error). In 16-bit types that moves the model by 2e-3 of ‖W‖ at r = 16, and by ten
//! times as much at r = 128 with rsLoRA, where the product is large: then write it in F32, or keep the native form.

use super::{Job, Residual};
use crate::adapter::{Adapter, AdapterForm, Fingerprint, factor_specs};
use crate::config::TensorNames;
use crate::layer_weight::transposed;
use crate::merge::{MergeSource, write_merged};
use crate::{Checkpoint, DType, ModelConfig, Result};
use loram_core::{LayerPlan, add_product};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Writes it from the file of factors, and makes `adapter` a plain one of that base.
pub(super) fn write(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    job: &Job<'_>,
    adapter: &mut Adapter,
    factors: &Path,
    how: Residual<'_>,
) -> Result<()> {
    let plans: BTreeMap<String, &LayerPlan> = job.plans.iter().map(|p| (format!("{}.weight", p.path), p)).collect();
    let mut source = Taken { plans, names: &job.names, factors: Checkpoint::open_file(factors)?, dtype: how.dtype };
    let mut updates = Map::new();
    if how.dtype == Some(DType::F32) {
        // transformers loads everything in the type that this names
        updates.insert("dtype".into(), json!("float32"));
        updates.insert("torch_dtype".into(), json!("float32"));
    }
    write_merged(ckpt, cfg, how.to, &updates, &mut source)?;
    let written = Checkpoint::open(how.to)?;
    let base = Fingerprint::of(&written, Some(&job.names), adapter.layers.keys().map(String::as_str))?;
    adapter.base_model = Some(how.to.display().to_string());
    adapter.revision = None;
    if let Some(recipe) = &mut adapter.recipe {
        recipe.form = AdapterForm::Plain;
        recipe.base = Some(base);
    }
    Ok(())
}

struct Taken<'a> {
    /// By the name of the weight in the task model.
    plans: BTreeMap<String, &'a LayerPlan>,
    names: &'a TensorNames,
    factors: Checkpoint,
    dtype: Option<DType>,
}

impl MergeSource for Taken<'_> {
    fn targets(&self) -> Vec<String> {
        self.plans.keys().cloned().collect()
    }

    fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    fn apply(&mut self, name: &str, _: &[usize], values: &mut [f32]) -> Result<()> {
        let Some(&LayerPlan { ref path, n, m, r, scaling, .. }) = self.plans.get(name).copied() else { return Ok(()) };
        let [a, b] = factor_specs(path, n, m, r, DType::F32);
        let (a, b) = (self.factors.tensor(&a.name)?.to_f32()?, self.factors.tensor(&b.name)?.to_f32()?);
        if self.names.is_transposed(path) {
            add_product(values, &transposed(&b, n, r), &transposed(&a, r, m), n, r, -scaling);
        } else {
            add_product(values, &a, &b, m, r, -scaling);
        }
        Ok(())
    }
}
