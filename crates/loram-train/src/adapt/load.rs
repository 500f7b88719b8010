//! An adapter folder onto a model: ours or PEFT's, plain or native.

use super::attach::attach;
use super::{Adaptation, AdaptedLayer, tokens};
use crate::config::BaseMode;
use crate::{Error, Result};
use loram_core::{LayerRecipe, from_recipe};
use loram_io::adapter::{Adapter, AdapterForm, Recipe};
use loram_io::family::TensorNames;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::{Lora, Model};
use std::collections::BTreeMap;
use std::path::Path;

/// How an adapter is put on a model.
#[derive(Debug, Clone, Copy)]
pub struct LoadAdapter {
    /// Its factors are trained, not frozen.
    pub train: bool,
    /// Dropout in training.
    pub dropout: f64,
    /// How the initial product of a native adapter is subtracted from the base.
    pub base: BaseMode,
}

impl LoadAdapter {
    /// For evaluation and generation.
    pub fn frozen() -> LoadAdapter {
        LoadAdapter { train: false, dropout: 0.0, base: BaseMode::Auto }
    }
}

/// Reads an adapter folder and puts it on the model of `ckpt`. Returns the adapter and warnings: that the base is another
/// than the one it was trained on, or that it seems to belong to a changed base.
pub fn load(
    model: &mut Model,
    ckpt: &Checkpoint,
    config: &ModelConfig,
    dir: &Path,
    how: LoadAdapter,
) -> Result<(Adaptation, Vec<String>)> {
    let adapter = Adapter::read(dir)?;
    let names = TensorNames::find(ckpt, config)?;
    let adapter = adapter.fitted(ckpt, &names);
    let mut warnings: Vec<String> = adapter.changed_base_hint().into_iter().collect();
    let recipe = adapter.recipe.as_ref();
    if let Some(Err(e)) = recipe.and_then(|r| r.base.as_ref()).map(|base| base.verify(ckpt, Some(&names))) {
        warnings.push(format!("{}: {e}", dir.display()));
    }
    adapter.check_copies(ckpt, &names)?;
    let native = adapter.form() == AdapterForm::Native;
    let mut layers = BTreeMap::new();
    let mut plans = adapter.plan()?;
    // the order of the model, so that a resumed run has its parameters where they were
    let order: Vec<String> = model.targets().into_iter().map(|l| l.path).collect();
    if let Some(path) = adapter.layers.keys().chain(adapter.tokens.keys()).find(|p| !order.contains(p)) {
        let what = format!("adapts `{path}`, which this model does not have: it belongs to another model");
        return Err(Error::Io(loram_io::Error::Adapter { path: dir.to_path_buf(), what }));
    }
    let mut saved: Vec<String> = Vec::new();
    let follows = follows_saved(model, &adapter);
    for name in adapter.saved.keys().filter(|name| Some(*name) != follows.as_ref()) {
        let path = name.rsplit_once('.').map_or(name.as_str(), |(path, _)| path);
        if !saved.iter().any(|p| p == path) {
            saved.extend(model.add_module_to_save(path)?);
        }
    }
    for (name, tensor) in adapter.saved.iter().filter(|(name, _)| Some(*name) != follows.as_ref()) {
        let wrong = |what: String| Error::Io(loram_io::Error::Tensor { name: name.clone(), what });
        let param = model.params_mut().get_mut(name).ok_or_else(|| wrong("the model has no such tensor".into()))?;
        if param.shape != tensor.shape {
            return Err(wrong(format!("the adapter has shape {:?}, the model {:?}", tensor.shape, param.shape)));
        }
        param.value.set_values(&tensor.values)?;
    }
    let shares = shares_adapter(model, &adapter);
    for (path, rows) in &adapter.tokens {
        model.train_rows(path, adapter.token_ids(path)?, Some(&rows.values), how.train)?;
    }
    for path in order {
        if adapter.layers.contains_key(&path) && model.is_embedding(&path) != adapter.embeddings.contains(&path) {
            let what =
                format!("adapts `{path}` as another kind of module than this model has: it belongs to another model");
            return Err(Error::Io(loram_io::Error::Adapter { path: dir.to_path_buf(), what }));
        }
        if shares && model.tied_head().is_some_and(|(head, _)| head == path) {
            continue;
        }
        let (Some(factors), Some(plan)) = (adapter.layers.get(&path), plans.remove(&path)) else { continue };
        let initial = match (native, adapter.init_factors.get(&path)) {
            (false, _) => None,
            (true, Some(stored)) => Some(stored.clone()),
            // a decomposition of the weight gives the initial factors again
            (true, None) => match adapter.init_of(&path, None) {
                Ok(found) => found,
                Err(_) => adapter.init_of(&path, Some(&model.frozen_weight(&path)?.to_f32()))?,
            },
        };
        let of_recipe = recipe.and_then(|r| from_recipe(r.layers.get(&path)?)).is_some();
        let stored = initial.clone().filter(|_| !of_recipe || adapter.init_factors.contains_key(&path));
        let (scaling, dropout) = (plan.scaling, how.dropout);
        let bias = adapter.biases.get(&path).cloned();
        let (train_a, train_b) = (how.train, how.train);
        let lora = Lora { factors: factors.clone(), scaling, bias, dropout, train_a, train_b, initial };
        attach(model, &path, lora, how.base)?;
        layers.insert(path, AdaptedLayer { plan, changes_base: native, stored, digest: None, weight_norm: None });
    }
    let tokens = adapter.config.trainable_token_indices.as_ref();
    if tokens::ties_head(adapter.config.ensure_weight_tying && shares, tokens, model.embedding_path()) {
        model.tie_head(how.dropout)?;
    }
    let recipe = recipe.map(|r| {
        // of a plain adapter that was converted, the recipe no longer has the rank
        let fits = |(path, l): &(&String, &LayerRecipe)| layers.get(*path).is_some_and(|x| x.plan.r == l.r);
        let own = r.layers.iter().filter(fits).map(|(path, l)| (path.clone(), l.clone()));
        Recipe {
            layers: own.collect(),
            options: r.options.clone(),
            base: r.base.clone(),
            labels: r.labels.clone(),
            pooling: r.pooling,
            problem_type: r.problem_type,
            ..Recipe::new(r.form, &r.scheme, r.seed)
        }
    });
    Ok((Adaptation { config: adapter.config, layers, saved, recipe }, warnings))
}

/// The weight of a head that is that of the saved embedding: PEFT's files have it twice with `ensure_weight_tying`.
fn follows_saved(model: &Model, adapter: &Adapter) -> Option<String> {
    let (head, embedding) = model.tied_head().filter(|_| adapter.config.ensure_weight_tying)?;
    let [head, embedding] = [head, embedding].map(|path| format!("{path}.weight"));
    (adapter.saved.get(&head)? == adapter.saved.get(&embedding)?).then_some(head)
}

/// Whether a head that shares the embedding's weight has the embedding's changes too (`ensure_weight_tying`). In a file in
/// which the two differ each has its own, as in PEFT.
fn shares_adapter(model: &Model, adapter: &Adapter) -> bool {
    let Some((head, embedding)) = model.tied_head().filter(|_| adapter.config.ensure_weight_tying) else {
        return false;
    };
    match (adapter.layers.get(head), adapter.layers.get(embedding)) {
        (None, _) => true,
        (Some(head), Some(embedding)) => head.same_bits(embedding),
        (Some(_), None) => false,
    }
}
