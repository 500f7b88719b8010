//! The trained factors of a model as an adapter that can be written.

use super::Adaptation;
use crate::Result;
use crate::base::Base;
use loram_core::{LayerPlan, LoraConfig};
use loram_io::adapter::{Adapter, AdapterForm, SavedTensor};
use loram_nn::{HeadKind, Model, ParamKind};
use std::collections::BTreeMap;

/// Settings of an adapter folder beside its weights.
#[derive(Debug, Clone)]
pub struct ExportInfo {
    /// The base as the user named it.
    pub base_model: String,
    /// Revision on the hub.
    pub revision: Option<String>,
    /// `CAUSAL_LM`, `SEQ_CLS` or `TOKEN_CLS`.
    pub task_type: &'static str,
}

impl ExportInfo {
    /// The settings of adapters for a head on a base model.
    pub(crate) fn of(base: &Base, head: HeadKind) -> ExportInfo {
        let task_type = base.config.task_type(head);
        ExportInfo { base_model: base.name.clone(), revision: base.revision.clone(), task_type }
    }
}

impl Adaptation {
    /// The adapter with the factors that `model` has now, in the form `form`. Where the scheme leaves the base as it is,
    /// there is the plain form only.
    pub fn export(&self, model: &Model, form: AdapterForm, info: &ExportInfo) -> Result<Adapter> {
        let mut adapter = Adapter::new(self.config.clone(), info.task_type, Some(info.base_model.clone()));
        adapter.revision = info.revision.clone();
        for path in self.layers.keys() {
            if let Some(factors) = model.factors(path)? {
                adapter.layers.insert(path.clone(), factors);
            }
            if let Some(bias) = model.lora_bias(path)? {
                adapter.biases.insert(path.clone(), bias);
            }
        }
        adapter.embeddings = adapter.layers.keys().filter(|path| model.is_embedding(path)).cloned().collect();
        adapter.tokens = rows(model)?;
        for p in model.params().iter().filter(|p| p.kind == ParamKind::Saved) {
            adapter.saved.insert(p.name.clone(), SavedTensor { shape: p.shape.clone(), values: p.value.values()? });
        }
        adapter.recipe.clone_from(&self.recipe);
        if adapter.form() == AdapterForm::Plain {
            return Ok(with_tied_head(adapter, model));
        }
        // needed to resume where the recipe alone does not give them
        let stored = self.layers.iter().filter_map(|(path, l)| Some((path.clone(), l.stored.clone()?)));
        adapter.init_factors = stored.collect();
        match form {
            AdapterForm::Native => Ok(adapter),
            AdapterForm::Plain => {
                let plain = adapter.to_plain(|path| unreachable!("`{path}`: its initial factors are stored"))?;
                Ok(with_tied_head(plain, model))
            }
        }
    }
}

/// The adapter with the changes of a head that shares the embedding's: PEFT has both in its file.
fn with_tied_head(mut adapter: Adapter, model: &Model) -> Adapter {
    let tied = model.tied_head().filter(|_| adapter.config.ensure_weight_tying);
    let Some((head, embedding)) = tied else { return adapter };
    if let Some(saved) = adapter.saved.get(&format!("{embedding}.weight")).cloned() {
        adapter.saved.insert(format!("{head}.weight"), saved);
    }
    let Some(factors) = adapter.layers.get(embedding).cloned() else { return adapter };
    let patterns = |config: &mut LoraConfig, plan: LayerPlan| {
        if plan.r != config.r {
            config.rank_pattern.insert(head.to_string(), plan.r);
        }
        if plan.lora_alpha != config.lora_alpha {
            config.alpha_pattern.insert(head.to_string(), plan.lora_alpha);
        }
    };
    if let Some(plan) = adapter.plan().ok().and_then(|mut plans| plans.remove(embedding)) {
        patterns(&mut adapter.config, plan);
    }
    adapter.layers.insert(head.to_string(), factors);
    adapter
}

/// The single trained rows of embeddings and heads, by module path; a head that shares the embedding's are not its own.
fn rows(model: &Model) -> Result<BTreeMap<String, SavedTensor>> {
    let shared = model.tied_head().map(|(head, _)| head);
    let own = model.targets().into_iter().filter(|t| Some(&t.path[..]) != shared);
    let mut out = BTreeMap::new();
    for t in own {
        if let Some((ids, values)) = model.trained_rows(&t.path)? {
            out.insert(t.path, SavedTensor { shape: vec![ids.len(), t.m], values });
        }
    }
    Ok(out)
}
