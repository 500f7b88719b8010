//! An adapter in memory: its settings, factors, fully trained tensors and recipe.

use super::recipe::{AdapterForm, RECIPE_FILE, Recipe};
use super::tensors::SavedTensor;
use crate::config::HeadKind;
use crate::family::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, DType, Error, LoadIn4Bit, ModelConfig, Result};
use loram_core::{Factors, LayerPlan, LinearInfo, LoraConfig, TargetModules, plan_layers};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// An adapter in memory.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// PEFT's settings.
    pub config: LoraConfig,
    /// PEFT's task, `CAUSAL_LM`, `SEQ_CLS` or `TOKEN_CLS`.
    pub task_type: Option<String>,
    /// The base model as the user named it, a path or a hub id.
    pub base_model: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// Factors by module path: W + s·B·A for a weight W (n, m), of an embedding (rows, width).
    pub layers: BTreeMap<String, Factors>,
    /// Those of `layers` that are embeddings, whose factors PEFT's files hold transposed.
    pub embeddings: BTreeSet<String>,
    /// Biases (n) of B by module path (`lora_bias`).
    pub biases: BTreeMap<String, Vec<f32>>,
    /// Single trained rows (rows, width) of embeddings and heads, by module path; the configuration's
    /// `trainable_token_indices` says which.
    pub tokens: BTreeMap<String, SavedTensor>,
    /// Tensors of `modules_to_save`, by name in the task model, e.g. `classifier.weight`.
    pub saved: BTreeMap<String, SavedTensor>,
    /// Copies of the base's weights that came with the file, by name in the task model; see [`Adapter::check_copies`].
    pub base_copies: BTreeMap<String, SavedTensor>,
    /// Its recipe; `None` for adapters of other programs.
    pub recipe: Option<Recipe>,
    /// Initial factors that are stored because the recipe alone cannot give them, by module path.
    pub init_factors: BTreeMap<String, Factors>,
    /// Type that the tensors are stored in: F32, F16 or BF16.
    pub dtype: DType,
    /// `adapter_config.json` as it was read, so that keys unknown here survive; empty for a new adapter.
    pub raw: Map<String, Value>,
}

impl Adapter {
    /// An adapter without layers yet, stored in F32.
    pub fn new(config: LoraConfig, task_type: &str, base_model: Option<String>) -> Adapter {
        Adapter {
            config,
            task_type: Some(task_type.to_string()),
            base_model,
            revision: None,
            layers: BTreeMap::new(),
            embeddings: BTreeSet::new(),
            biases: BTreeMap::new(),
            tokens: BTreeMap::new(),
            saved: BTreeMap::new(),
            base_copies: BTreeMap::new(),
            recipe: None,
            init_factors: BTreeMap::new(),
            dtype: DType::F32,
            raw: Map::new(),
        }
    }

    /// The form: plain loads onto the untouched base; native only when the recipe says so.
    pub fn form(&self) -> AdapterForm {
        self.recipe.as_ref().map_or(AdapterForm::Plain, |r| r.form)
    }

    /// How the weights of its base were quantised while they were read, if they were.
    pub fn loaded_in_4bit(&self) -> Option<&LoadIn4Bit> {
        self.recipe.as_ref()?.base.as_ref()?.load_in_4bit.as_ref()
    }

    /// Rank, alpha and scaling of every layer, from the configuration's patterns.
    pub fn plan(&self) -> Result<BTreeMap<String, LayerPlan>> {
        // the file says which layers are adapted, the configuration only how they are scaled; a converted adapter may
        // have a rank beyond its layer's sides, which is fine once it is trained
        let linears: Vec<LinearInfo> = self
            .layers
            .iter()
            .map(|(path, w)| LinearInfo { path: path.clone(), n: w.n.max(w.r), m: w.m.max(w.r), output_layer: false })
            .collect();
        if linears.is_empty() {
            return Ok(BTreeMap::new());
        }
        let config = LoraConfig {
            target_modules: TargetModules::Names(self.layers.keys().cloned().collect()),
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: None,
            ..self.config.clone()
        };
        let plans = plan_layers(&config, &linears)?;
        let shaped = plans.into_iter().map(|p| {
            let w = &self.layers[&p.path];
            (p.path.clone(), LayerPlan { n: w.n, m: w.m, ..p })
        });
        Ok(shaped.collect())
    }

    /// The classification head that the adapter brings for a model, whose pooling is set ([`Adapter::with_pooling`]); `None` when it
    /// brings none.
    pub fn head(&self, config: &ModelConfig) -> Option<HeadKind> {
        let tokens = self.task_type.as_deref() == Some("TOKEN_CLS") && !config.pools_token_outputs();
        let kind: fn(usize) -> HeadKind = match tokens {
            true => |outputs| HeadKind::Tokens { outputs },
            false => |outputs| HeadKind::Pooled { outputs },
        };
        let out = config.head_layout(kind(1))?.out.path;
        let weight = self.saved.get(&format!("{out}.weight"))?;
        weight.shape.first().copied().map(kind)
    }

    /// The numbers of the trained rows of a module in [`Adapter::tokens`]. An error when the configuration names as many as
    /// there are rows for none.
    pub fn token_ids(&self, path: &str) -> Result<&[u32]> {
        let rows = self.tokens.get(path).and_then(|t| t.shape.first().copied()).unwrap_or(0);
        let named = self.config.trainable_token_indices.as_ref();
        // a list is for the embedding, the only one that is stored then
        match named.and_then(|t| t.of(path, path)) {
            Some(ids) if ids.len() == rows => Ok(ids),
            found => {
                let found = found.map_or("none".into(), |ids| ids.len().to_string());
                let what = format!("holds {rows} trained rows, trainable_token_indices names {found}");
                Err(Error::Tensor { name: path.to_string(), what })
            }
        }
    }

    /// The same adapter for a model with a head: layers whose paths lack the prefix of the backbone (`layers.0…` for
    /// `model.layers.0…`) get it, with a note. Other paths stay.
    pub fn fitted(mut self, ckpt: &Checkpoint, names: &TensorNames) -> Adapter {
        let backbone = names.backbone();
        let lacks = |path: &str| !names.holds(ckpt, path) && names.holds(ckpt, &format!("{backbone}{path}"));
        let paths = || self.layers.keys().chain(self.tokens.keys());
        if backbone.is_empty() || !paths().any(|path| lacks(path)) {
            return self;
        }
        tracing::warn!("the adapter's names lack `{backbone}`, as for a model without a head: added");
        let whole = |path: String| if lacks(&path) { format!("{backbone}{path}") } else { path };
        self.layers = self.layers.into_iter().map(|(path, f)| (whole(path), f)).collect();
        self.embeddings = self.embeddings.into_iter().map(whole).collect();
        self.biases = self.biases.into_iter().map(|(path, b)| (whole(path), b)).collect();
        self.tokens = self.tokens.into_iter().map(|(path, t)| (whole(path), t)).collect();
        self
    }

    /// PEFT saves the weight under an adapted output layer along with the adapter. It must be the model's own: one that
    /// was resized or trained has no place in an adapter here.
    pub fn check_copies(&self, ckpt: &Checkpoint, names: &TensorNames) -> Result<()> {
        for (name, copy) in &self.base_copies {
            let path = name.strip_suffix(".weight").unwrap_or(name);
            let own = LayerWeight::find(ckpt, names, path)?.tensor;
            let same = own.shape() == copy.shape && own.to_f32()? == copy.values;
            if !same {
                let what = "the adapter brings another weight for this layer than the model has (was the vocabulary \
                            resized, or the layer trained?): that is not supported";
                return Err(Error::Tensor { name: name.clone(), what: what.into() });
            }
        }
        Ok(())
    }

    /// A line for the user when the configuration hints that the adapter belongs to a changed base: PEFT leaves
    /// `init_lora_weights` at `pissa`, `olora`, … unless the adapter was converted when it was saved.
    pub fn changed_base_hint(&self) -> Option<String> {
        let init = self.raw.get("init_lora_weights").and_then(Value::as_str)?.to_ascii_lowercase();
        let changes = ["pissa", "olora", "corda", "lora_ga", "loftq"].iter().any(|s| init.starts_with(s));
        (self.recipe.is_none() && changes).then(|| {
            format!(
                "init_lora_weights is `{init}`: unless the adapter was converted when it was saved, it belongs to a changed \
                 base model and gives wrong results on the original one"
            )
        })
    }

    /// The factors fit the configuration and the recipe; otherwise what is wrong.
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !matches!(self.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(format!("adapters are stored in F32, F16 or BF16, not {}", self.dtype));
        }
        for (path, w) in &self.layers {
            w.check().map_err(|what| format!("layer `{path}`: {what}"))?;
        }
        for (path, rows) in &self.tokens {
            if self.layers.contains_key(path) {
                return Err(format!("`{path}` has LoRA factors and single trained rows, which is not supported"));
            }
            if rows.shape.len() != 2 {
                return Err(format!("the trained rows of `{path}` have shape {:?}, not two dimensions", rows.shape));
            }
            self.token_ids(path).map_err(|e| e.to_string())?;
        }
        for (path, plan) in self.plan().map_err(|e| e.to_string())? {
            let r = self.layers[&path].r;
            if plan.r != r {
                return Err(format!("layer `{path}`: the factors have rank {r}, the configuration says {}", plan.r));
            }
        }
        if let Some(recipe) = self.recipe.as_ref().filter(|r| r.form == AdapterForm::Native) {
            for (path, w) in &self.layers {
                match recipe.layers.get(path) {
                    None => {
                        return Err(format!("{RECIPE_FILE} lacks layer `{path}`, whose initial factors are needed"));
                    }
                    Some(l) if (l.r, l.n, l.m) != (w.r, w.n, w.m) => {
                        return Err(format!("{RECIPE_FILE} and the weights differ in the shape of layer `{path}`"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }
}
