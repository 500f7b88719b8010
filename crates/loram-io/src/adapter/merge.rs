//! The change that an adapter makes to its base's weights, as a source for [`crate::merge::write_merged`].

use super::in_memory::Adapter;
use crate::atomic::Output;
use crate::config::head_entries;
use crate::family::TensorNames;
use crate::merge::{MergeReport, MergeSource, write_merged};
use crate::{Checkpoint, Error, ModelConfig, Result};
use serde_json::Map;
use std::collections::BTreeMap;

/// How a merge is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct MergeOptions {
    /// Merge even if the model is not the one that the adapter was initialised on.
    pub any_base: bool,
}

/// Writes the model `ckpt` with an adapter merged into its weights to the folder `out`: same shards and dtypes, other
/// files copied; a head that the adapter brings is written with its labels.
///
/// Errors: another model than the adapter's base (by its fingerprint), those of [`write_merged`].
pub fn merge_adapter<'a>(
    ckpt: &Checkpoint,
    config: &ModelConfig,
    adapter: &Adapter,
    out: impl Into<Output<'a>>,
    options: MergeOptions,
) -> Result<MergeReport> {
    let names = TensorNames::find(ckpt, config)?;
    if let Some(base) = adapter.recipe.as_ref().and_then(|r| r.base.as_ref()).filter(|_| !options.any_base) {
        base.verify(ckpt, Some(&names))?;
    }
    adapter.check_copies(ckpt, &names)?;
    let entries = match adapter.head_outputs(config) {
        Some(outputs) => head_entries(config, &head_labels(adapter, config, outputs)),
        None => Map::new(),
    };
    write_merged(ckpt, Some(config), out, &entries, &mut AdapterMerge::new(adapter)?)
}

/// Names of a head's outputs: those of the recipe, those of the model where their number fits, else numbers. A single
/// output is a regression and has none.
fn head_labels(adapter: &Adapter, config: &ModelConfig, outputs: usize) -> Vec<String> {
    let fits = |names: &&Vec<String>| names.len() == outputs;
    let own = adapter.recipe.as_ref().and_then(|r| r.labels.as_ref()).filter(fits);
    match own.or(Some(&config.labels().names).filter(fits)) {
        _ if outputs == 1 => Vec::new(),
        Some(names) => names.clone(),
        None => (0..outputs).map(|i| format!("LABEL_{i}")).collect(),
    }
}

/// Adds `s·B·A` (plain) or `s·(B·A − B₀·A₀)` (native) to the weights, rounded once to f32, and puts saved modules in
/// place.
pub struct AdapterMerge<'a> {
    adapter: &'a Adapter,
    scaling: BTreeMap<String, f64>,
}

impl<'a> AdapterMerge<'a> {
    /// Prepares a merge. Whether the model is the adapter's base is for [`super::Fingerprint::verify`] to say.
    pub fn new(adapter: &'a Adapter) -> Result<AdapterMerge<'a>> {
        let scaling = adapter.plan()?.into_iter().map(|(path, p)| (path, p.scaling)).collect();
        Ok(AdapterMerge { adapter, scaling })
    }
}

impl MergeSource for AdapterMerge<'_> {
    fn targets(&self) -> Vec<String> {
        let layers = self.adapter.layers.keys().map(|p| format!("{p}.weight"));
        layers.chain(self.adapter.saved.keys().cloned()).collect()
    }

    fn apply(&mut self, name: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
        let fits = |own: &[usize]| match own == shape {
            true => Ok(()),
            false => Err(Error::Tensor {
                name: name.to_string(),
                what: format!("the adapter is for shape {own:?}, the model has {shape:?}"),
            }),
        };
        if let Some(saved) = self.adapter.saved.get(name) {
            fits(&saved.shape)?;
            values.copy_from_slice(&saved.values);
        }
        let path = name.strip_suffix(".weight").unwrap_or(name);
        let Some(w) = self.adapter.layers.get(path) else { return Ok(()) };
        fits(&[w.n, w.m])?;
        let s = self.scaling[path];
        match self.adapter.init_of(path, Some(values))? {
            None => w.add_to(values, s),
            Some(init) => w.plain(&init).add_to(values, s),
        }
        Ok(())
    }

    fn new_tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.adapter.saved.get(name).map(|t| (t.shape.clone(), t.values.clone()))
    }
}
