//! The trained factors of a model as an adapter that can be written.

use super::Adaptation;
use crate::Result;
use loram_io::adapter::{Adapter, AdapterForm, SavedTensor};
use loram_nn::{Model, ParamKind};

/// Settings of an adapter folder beside its weights.
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
    /// The adapter with the factors that `model` has now, in the form `form`. Where the scheme leaves the base as it is,
    /// there is the plain form only.
    pub fn export(&self, model: &Model, form: AdapterForm, info: &ExportInfo) -> Result<Adapter> {
        let mut adapter = Adapter::new(self.config.clone(), info.task_type, Some(info.base_model.clone()));
        adapter.revision = info.revision.clone();
        let factors = |path: &String| Some((path.clone(), model.factors(path)?));
        adapter.layers = self.layers.keys().filter_map(factors).collect();
        for p in model.params().iter().filter(|p| p.kind == ParamKind::Saved) {
            adapter.saved.insert(p.name.clone(), SavedTensor { shape: p.shape.clone(), values: p.value.to_f32_vec() });
        }
        adapter.recipe.clone_from(&self.recipe);
        if adapter.form() == AdapterForm::Plain {
            return Ok(adapter);
        }
        // needed to resume where the recipe alone does not give them
        let stored = self.layers.iter().filter_map(|(path, l)| Some((path.clone(), l.stored.clone()?)));
        adapter.init_factors = stored.collect();
        match form {
            AdapterForm::Native => Ok(adapter),
            AdapterForm::Plain => {
                Ok(adapter.to_plain(|path| unreachable!("`{path}`: its initial factors are stored"))?)
            }
        }
    }
}
