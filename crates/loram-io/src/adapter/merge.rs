//! The change that an adapter makes to its base's weights, as a source for [`crate::merge::write_merged`].

use super::in_memory::Adapter;
use crate::atomic::Output;
use crate::config::{HeadKind, ProblemType, head_entries};
use crate::family::TensorNames;
use crate::merge::{MergeReport, MergeSource, NewTensor, write_merged};
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
    let config = &adapter.with_pooling(config)?;
    let adapter = &adapter.checked_for(ckpt, config, options)?;
    let entries = match adapter.head(config) {
        Some(head) => {
            let labels = head_labels(adapter, config, head);
            head_entries(config, head, &labels, adapter.problem_type(config))
        }
        None => Map::new(),
    };
    write_merged(ckpt, Some(config), out, &entries, &mut merge_source(ckpt, config, adapter)?)
}

impl Adapter {
    /// The configuration with the pooling of the adapter's head. Errors: those of [`ModelConfig::set_pooling`].
    pub fn with_pooling(&self, config: &ModelConfig) -> Result<ModelConfig> {
        let mut config = config.clone();
        config.set_pooling(self.recipe.as_ref().and_then(|r| r.pooling))?;
        Ok(config)
    }

    /// The kind of problem that its head solves, as far as its recipe or the model says.
    pub fn problem_type(&self, config: &ModelConfig) -> Option<ProblemType> {
        self.recipe.as_ref().and_then(|r| r.problem_type).or(config.labels().problem_type)
    }

    /// The adapter for the model `ckpt`, into whose weights it is to be merged. Errors: another model than its base (by its
    /// fingerprint), an adapted head whose own weight differs, a bias of B where the layer has none.
    pub fn checked_for(&self, ckpt: &Checkpoint, config: &ModelConfig, options: MergeOptions) -> Result<Adapter> {
        let names = TensorNames::find(ckpt, config)?;
        if let Some(base) = self.recipe.as_ref().and_then(|r| r.base.as_ref()).filter(|_| !options.any_base) {
            base.verify(ckpt, Some(&names))?;
        }
        let adapter = self.clone().fitted(ckpt, &names);
        adapter.check_copies(ckpt, &names)?;
        if let Some(path) = adapter.biases.keys().find(|path| !ckpt.contains(&names.stored(&format!("{path}.bias")))) {
            let what =
                "its adapter has a bias (lora_bias) and the layer has none: it cannot be merged, in PEFT neither";
            return Err(Error::Tensor { name: format!("{path}.bias"), what: what.into() });
        }
        Ok(adapter)
    }
}

/// The change that an adapter makes to the model `ckpt`.
pub(crate) fn merge_source<'a>(
    ckpt: &Checkpoint,
    config: &ModelConfig,
    adapter: &'a Adapter,
) -> Result<AdapterMerge<'a>> {
    let names = TensorNames::find(ckpt, config)?;
    let shares_head = names.shares_head(ckpt, config)?;
    let head = config.tied_weights().filter(|_| shares_head);
    let stored_head = head.as_ref().is_some_and(|_| names.has_head(ckpt));
    Ok(AdapterMerge { head, stored_head, ..AdapterMerge::new(adapter)? })
}

/// Names of a head's outputs: those of the recipe, those of the model where their number fits, else numbers. A single
/// output for a sequence is a regression and has none, but with labels of which any number may hold.
fn head_labels(adapter: &Adapter, config: &ModelConfig, head: HeadKind) -> Vec<String> {
    let outputs = head.outputs().unwrap_or(0);
    let several =
        matches!(head, HeadKind::Tokens { .. }) || adapter.problem_type(config) == Some(ProblemType::MultiLabel);
    let fits = |names: &&Vec<String>| names.len() == outputs;
    let own = adapter.recipe.as_ref().and_then(|r| r.labels.as_ref()).filter(fits);
    match own.or(Some(&config.labels().names).filter(fits)) {
        _ if outputs == 1 && !several => Vec::new(),
        Some(names) => names.clone(),
        None => (0..outputs).map(|i| format!("LABEL_{i}")).collect(),
    }
}

/// Adds `s·B·A` (plain) or `s·(B·A − B₀·A₀)` (native) to the weights, rounded once to f32, and `s` times the biases of B to
/// biases; puts saved modules and trained rows in place.
pub struct AdapterMerge<'a> {
    adapter: &'a Adapter,
    scaling: BTreeMap<String, f64>,
    /// The weights of the next-token head and of the embedding, where they are one.
    head: Option<(String, String)>,
    /// The file has both all the same.
    stored_head: bool,
}

impl<'a> AdapterMerge<'a> {
    /// Prepares a merge. Whether the model is the adapter's base is for [`super::Fingerprint::verify`] to say.
    pub fn new(adapter: &'a Adapter) -> Result<AdapterMerge<'a>> {
        let scaling = adapter.plan()?.into_iter().map(|(path, p)| (path, p.scaling)).collect();
        Ok(AdapterMerge { adapter, scaling, head: None, stored_head: false })
    }

    /// The name under which the adapter has the change of a tensor: a head that follows the embedding has the embedding's.
    fn source<'n>(&'n self, name: &'n str) -> &'n str {
        match &self.head {
            Some((head, embedding)) if name == head && self.keeps_tie() => embedding,
            _ => name,
        }
    }
}

impl MergeSource for AdapterMerge<'_> {
    type Error = Error;

    fn targets(&self) -> Vec<String> {
        let layers = self.adapter.layers.keys().map(|p| format!("{p}.weight"));
        let biases = self.adapter.biases.keys().map(|p| format!("{p}.bias"));
        let tokens = self.adapter.tokens.keys().map(|p| format!("{p}.weight"));
        let all = layers.chain(biases).chain(tokens).chain(self.adapter.saved.keys().cloned());
        match &self.head {
            Some((head, _)) if self.keeps_tie() && self.stored_head => all.chain([head.clone()]).collect(),
            // two equal factors of one weight
            Some((head, _)) if self.keeps_tie() => all.filter(|name| name != head).collect(),
            _ => all.collect(),
        }
    }

    /// As in PEFT: with `ensure_weight_tying`, and for single rows of the embedding always.
    fn keeps_tie(&self) -> bool {
        let Some((head, embedding)) = &self.head else { return false };
        let path = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_string();
        let (head, embedding, a) = (path(head), path(embedding), self.adapter);
        let own_head = a.tokens.contains_key(&head)
            || a.layers.get(&head).is_some_and(|f| a.layers.get(&embedding).is_none_or(|e| !f.same_bits(e)));
        let rows = a.tokens.contains_key(&embedding);
        let changed = rows || a.layers.contains_key(&embedding) || a.saved.contains_key(&format!("{embedding}.weight"));
        changed && !own_head && (a.config.ensure_weight_tying || rows)
    }

    fn apply(&mut self, name: &str, shape: &[usize], values: &mut [f32]) -> Result<()> {
        let fits = |own: &[usize]| match own == shape {
            true => Ok(()),
            false => Err(Error::Tensor {
                name: name.to_string(),
                what: format!("the adapter is for shape {own:?}, the model has {shape:?}"),
            }),
        };
        let name = &self.source(name).to_string()[..];
        if let Some(bias) = name.strip_suffix(".bias").and_then(|path| Some((path, self.adapter.biases.get(path)?))) {
            fits(&[bias.1.len()])?;
            let s = self.scaling[bias.0];
            values.iter_mut().zip(bias.1).for_each(|(w, b)| *w = (f64::from(*w) + s * f64::from(*b)) as f32);
        }
        if let Some(saved) = self.adapter.saved.get(name) {
            fits(&saved.shape)?;
            values.copy_from_slice(&saved.values);
        }
        let Some(path) = name.strip_suffix(".weight") else { return Ok(()) };
        if let Some(rows) = self.adapter.tokens.get(path) {
            let (width, ids) = (rows.shape[1], self.adapter.token_ids(path)?);
            fits(&[shape[0], width])?;
            for (&id, row) in ids.iter().zip(rows.values.chunks_exact(width)) {
                let (at, limit) = (id as usize * width, shape[0]);
                let slot = values.get_mut(at..at + width).ok_or_else(|| Error::Tensor {
                    name: name.to_string(),
                    what: format!("trainable_token_indices names token {id}, the model has {limit}"),
                })?;
                slot.copy_from_slice(row);
            }
        }
        let Some(w) = self.adapter.layers.get(path) else { return Ok(()) };
        fits(&[w.n, w.m])?;
        let s = self.scaling[path];
        match self.adapter.init_of(path, Some(values))? {
            None => w.add_to(values, s),
            Some(init) => w.plain(&init).add_to(values, s),
        }
        Ok(())
    }

    fn new_tensor(&self, name: &str) -> Result<Option<NewTensor>> {
        Ok(self.adapter.saved.get(name).map(|t| (t.shape.clone(), t.values.clone())))
    }
}
