//! An adapter folder onto a model: ours or PEFT's, plain or native.

use super::start::{New, attach};
use super::{Adaptation, AdaptedLayer};
use crate::config::BaseMode;
use crate::{Error, Result};
use loram_io::adapter::{Adapter, AdapterForm};
use loram_io::config::TensorNames;
use loram_io::{Checkpoint, ModelConfig};
use loram_nn::Model;
use std::collections::BTreeMap;
use std::path::Path;

/// How an adapter is put on a model.
#[derive(Debug, Clone, Copy)]
pub struct LoadAdapter {
    /// Whether it goes on training.
    pub train: bool,
    /// Dropout in training.
    pub dropout: f64,
    /// How the start of a native adapter is taken off the base.
    pub base: BaseMode,
}

impl LoadAdapter {
    /// For evaluation and generation.
    pub fn frozen() -> LoadAdapter {
        LoadAdapter { train: false, dropout: 0.0, base: BaseMode::Auto }
    }
}

/// Reads an adapter folder and puts it on the model of `ckpt`. Gives the adapter and what the user should know: that the
/// base is another than the one it was trained on, or that it seems to belong to a changed base.
pub fn load(
    model: &mut Model,
    ckpt: &Checkpoint,
    config: &ModelConfig,
    dir: &Path,
    how: LoadAdapter,
) -> Result<(Adaptation, Vec<String>)> {
    let adapter = Adapter::read(dir)?;
    let mut warnings: Vec<String> = adapter.changed_base_hint().into_iter().collect();
    let recipe = adapter.recipe.as_ref();
    let names = TensorNames::find(ckpt, config)?;
    if let Some(Err(e)) = recipe.and_then(|r| r.base.as_ref()).map(|base| base.verify(ckpt, Some(&names))) {
        warnings.push(format!("{}: {e}", dir.display()));
    }
    adapter.check_copies(ckpt, &names)?;
    let native = adapter.form() == AdapterForm::Native;
    let mut layers = BTreeMap::new();
    let mut plans = adapter.plan()?;
    // the order of the model, so that a resumed run has its parameters where they were
    let order: Vec<String> = model.linears().into_iter().map(|l| l.path).collect();
    if let Some(path) = adapter.layers.keys().find(|p| !order.contains(p)) {
        let what = format!("adapts `{path}`, which this model does not have: it belongs to another model");
        return Err(Error::Io(loram_io::Error::Adapter { path: dir.to_path_buf(), what }));
    }
    let mut saved: Vec<String> = Vec::new();
    for name in adapter.saved.keys() {
        let path = name.rsplit_once('.').map_or(name.as_str(), |(path, _)| path);
        if !saved.iter().any(|p| p == path) {
            saved.extend(model.add_module_to_save(path)?);
        }
    }
    for (name, tensor) in &adapter.saved {
        let wrong = |what: String| Error::Io(loram_io::Error::Tensor { name: name.clone(), what });
        let param = model.params_mut().get_mut(name).ok_or_else(|| wrong("the model has no such tensor".into()))?;
        if param.shape != tensor.shape {
            return Err(wrong(format!("the adapter has shape {:?}, the model {:?}", tensor.shape, param.shape)));
        }
        param.value.copy_from_f32(&tensor.values);
    }
    for path in order {
        let (Some(factors), Some(plan)) = (adapter.layers.get(&path), plans.remove(&path)) else { continue };
        let recipe = recipe.and_then(|r| r.layers.get(&path)).cloned();
        let mut layer = AdaptedLayer {
            changes_base: native,
            // a plain adapter goes on as one: after a conversion, the recipe of its start no longer fits its rank
            recipe: recipe.filter(|r| r.r == plan.r),
            init: adapter.init_factors.get(&path).filter(|_| native).cloned(),
            plan,
        };
        if native && layer.init().is_none() {
            // a decomposition of the weight gives the initial factors again
            layer.init = adapter.init_of(&path, Some(&model.weight_f32(&path)?))?;
        }
        let new = New { factors: factors.clone(), train_a: how.train, train_b: how.train };
        attach(model, &layer, new, how.dropout, how.base)?;
        layers.insert(path, layer);
    }
    let labels = recipe.and_then(|r| r.labels.clone());
    Ok((
        Adaptation {
            config: adapter.config,
            layers,
            saved,
            scheme: recipe.map(|r| r.scheme.clone()),
            options: recipe.map(|r| r.options.clone()).unwrap_or_default(),
            seed: recipe.map_or(0, |r| r.seed),
            base: recipe.and_then(|r| r.base.clone()),
            labels,
        },
        warnings,
    ))
}
