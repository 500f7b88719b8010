//! The change that an adapter makes to its base's weights, as a source for [`crate::merge::write_merged`].

use super::Adapter;
use crate::merge::MergeSource;
use crate::{Error, Result};
use std::collections::BTreeMap;

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
        match self.adapter.start_of(path, Some(values))? {
            None => loram_core::add_product(values, &w.a, &w.b, w.m, w.r, s),
            Some((a0, b0)) => {
                let (a, b) = loram_core::plain_factors(&w.a, &w.b, &a0, &b0, w.n, w.m, w.r);
                loram_core::add_product(values, &a, &b, w.m, 2 * w.r, s);
            }
        }
        Ok(())
    }

    fn new_tensor(&self, name: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.adapter.saved.get(name).map(|t| (t.shape.clone(), t.values.clone()))
    }
}
