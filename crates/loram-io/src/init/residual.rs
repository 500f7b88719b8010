//! The residual checkpoint of an initialisation: `W − s·B₀·A₀` for every target, everything else copied. With it, the factors are a
//! plain adapter that any trainer can train further.
//!
//! The product is computed in f32 from the stored factors and subtracted in f32; the result is rounded once
//! (2507.06558's order, with the smaller error). In 16-bit types that moves the model by 2e-3 of ‖W‖ at r = 16, and by ten
//! times as much at r = 128 with rsLoRA, where the product is large: then write it in F32, or keep the native form.

use crate::adapter::{ADAPTER_WEIGHTS, Adapter, AdapterForm, FactorFile, Fingerprint};
use crate::atomic::Output;
use crate::family::TensorNames;
use crate::merge::{MergeSource, write_merged};
use crate::{Checkpoint, DType, Error, ModelConfig, Result};
use loram_core::{LayerPlan, SchemeSpec, StoredWeight};
use serde_json::{Map, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Where to and in which type the residual checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// The folder.
    pub to: Output<'a>,
    /// Type of the changed weights: F32, or that of the base for `None`.
    pub dtype: Option<DType>,
}

/// An error for a base with quantised weights: its residual would have to be quantised again, and be another model.
pub(super) fn refuse_quantised(ckpt: &Checkpoint) -> Result<()> {
    match ckpt.quantised() {
        None => Ok(()),
        Some((name, dtype)) => {
            let what = format!(
                "{}: the weights are quantised (`{name}` is {dtype}), and so would W − s·B₀A₀ have to be, which changes the model: train \
                 with the initial product as a branch (`loram train` does), or take the scheme `loram`",
                ckpt.root().display(),
            );
            Err(Error::Usage(what))
        }
    }
}

/// Writes the residual checkpoint of an adapter that is in native form in the folder `dir`, and makes it there a plain one
/// of that base.
///
/// Errors: no adapter there, or one that leaves its base as it is; the disk.
pub fn write_residual(ckpt: &Checkpoint, cfg: Option<&ModelConfig>, dir: &Path, how: Residual<'_>) -> Result<()> {
    refuse_quantised(ckpt)?;
    let mut adapter = Adapter::read(dir)?;
    if adapter.form() != AdapterForm::Native {
        let what = "this initialisation does not change the base model: there is no residual to write";
        return Err(Error::Usage(what.into()));
    }
    let names = TensorNames::of(ckpt, cfg)?;
    let plans: Vec<LayerPlan> = adapter.plan()?.into_values().collect();
    write(ckpt, cfg, (&names, &plans), &mut adapter, &dir.join(ADAPTER_WEIGHTS), how)?;
    adapter.write_to(Output::new(dir, true))
}

/// Writes it from the file of factors, and makes `adapter` a plain one of that base.
pub(super) fn write(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    (names, plans): (&TensorNames, &[LayerPlan]),
    adapter: &mut Adapter,
    factors: &Path,
    how: Residual<'_>,
) -> Result<()> {
    let spec = adapter.recipe.as_ref().map(|r| SchemeSpec::parse(&r.scheme, &r.options)).transpose()?;
    let plans: BTreeMap<String, &LayerPlan> = plans.iter().map(|p| (format!("{}.weight", p.path), p)).collect();
    let factors = Checkpoint::open_file(factors)?;
    let embeddings = &adapter.embeddings.clone();
    let mut source = Taken { plans, embeddings, factors, dtype: how.dtype, spec };
    let mut updates = Map::new();
    if how.dtype == Some(DType::F32) {
        // transformers loads everything in the type that this names
        updates.insert("dtype".into(), json!("float32"));
        updates.insert("torch_dtype".into(), json!("float32"));
    }
    write_merged(ckpt, cfg, how.to, &updates, &mut source)?;
    let written = Checkpoint::open(how.to.path)?;
    let base = Fingerprint::of(&written, Some(names), adapter.layers.keys().map(String::as_str))?;
    adapter.base_model = Some(how.to.path.display().to_string());
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
    embeddings: &'a BTreeSet<String>,
    factors: Checkpoint,
    dtype: Option<DType>,
    spec: Option<SchemeSpec>,
}

impl MergeSource for Taken<'_> {
    type Error = Error;

    fn targets(&self) -> Vec<String> {
        self.plans.keys().cloned().collect()
    }

    fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    fn apply(&mut self, name: &str, _: &[usize], values: &mut [f32]) -> Result<()> {
        let Some(plan) = self.plans.get(name).copied() else { return Ok(()) };
        let &LayerPlan { ref path, n, m, r, scaling, .. } = plan;
        let quantised = |w: &[f32]| match &self.spec {
            Some(spec) => loram_core::quantised_base(spec, StoredWeight::of(w, n, m), plan),
            None => Ok(None),
        };
        // what LoftQ's factors belong to: the quantised weight, read back
        if let Some(q) = quantised(values)? {
            values.copy_from_slice(&q);
            return Ok(());
        }
        let file = FactorFile { path, n, m, r, embedding: self.embeddings.contains(path) };
        file.read(&self.factors)?.add_to(values, -scaling);
        Ok(())
    }
}
