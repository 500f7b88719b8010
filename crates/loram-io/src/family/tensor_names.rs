//! From the module paths of a task model (what PEFT and transformers show) to the tensor names of a checkpoint.
//!
//! A checkpoint saved from `BertModel` has `encoder.layer.0…`, one saved from `BertForSequenceClassification` has
//! `bert.encoder.layer.0…`; the path is the latter in both cases.

use super::{registry, unknown};
use crate::config::{CONFIG_FILE, FamilyNames, Fields, HeadLayer, ModelConfig, read_object};
use crate::{Checkpoint, Error, Result};

/// Translation of names for one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames {
    family: &'static FamilyNames,
    /// The prefix that the checkpoint uses for the backbone, often the family's, or empty.
    stored: String,
    /// Layer norms are called `gamma` and `beta` (BERT checkpoints converted from TensorFlow).
    gamma_beta: bool,
}

impl TensorNames {
    /// Finds the prefix that this checkpoint uses, by its token embedding. An error when that is not there.
    pub fn find(ckpt: &Checkpoint, cfg: &ModelConfig) -> Result<TensorNames> {
        let family = cfg.names();
        let anchor = format!("{}.weight", family.embedding);
        let gamma_beta = ckpt.names().any(|n| n.ends_with("LayerNorm.gamma"));
        let names = |stored: &str| TensorNames { family, stored: stored.to_string(), gamma_beta };
        for stored in [family.backbone, ""] {
            if ckpt.contains(&format!("{stored}{anchor}")) {
                return Ok(names(stored));
            }
        }
        // wrapped models, e.g. `0.auto_model.embeddings…`
        let mut wrapped = ckpt.names().filter_map(|n| n.strip_suffix(&anchor)).filter(|p| p.ends_with('.'));
        match (wrapped.next(), wrapped.next()) {
            (Some(stored), None) => Ok(names(stored)),
            _ => Err(Error::NoTensor {
                path: ckpt.root().to_path_buf(),
                name: format!("{}{anchor}", family.backbone),
                hint: format!(": these are not the weights of a `{}` model", family.model_type),
            }),
        }
    }

    /// Names of a checkpoint whose architecture need not be one that runs here: those of `cfg` when it is given, those of
    /// the family that its `config.json` names, else the tensor names as they are.
    ///
    /// Errors: as [`TensorNames::find`]; a `config.json` that cannot be read or says that the weights are quantised.
    pub fn of(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<TensorNames> {
        if let Some(cfg) = cfg {
            return TensorNames::find(ckpt, cfg);
        }
        let path = ckpt.root().join(CONFIG_FILE);
        let raw = if path.exists() { read_object(&path)? } else { Default::default() };
        Fields { map: &raw, path: &path, prefix: "" }.refuse_quantised()?;
        let model_type = raw.get("model_type").and_then(serde_json::Value::as_str);
        let family = match model_type.and_then(registry::find).filter(|f| f.read.is_none()) {
            Some(family) => &family.names,
            None => unknown::names(ckpt, model_type),
        };
        let prefixed = ckpt.contains(&format!("{}.weight", family.embedding_path()));
        let stored = if prefixed { family.backbone.to_string() } else { String::new() };
        Ok(TensorNames { family, stored, gamma_beta: false })
    }

    /// The names of the family, as they are in a model with a head.
    pub fn family(&self) -> &'static FamilyNames {
        self.family
    }

    /// Whether the weight of this module is stored as (inputs, outputs).
    pub fn is_transposed(&self, path: &str) -> bool {
        path.rsplit('.').next().is_some_and(|last| self.family.conv1d.contains(&last))
    }

    /// Prefix of the backbone in module paths, with its dot, e.g. `model.`; empty for an unknown architecture.
    pub fn backbone(&self) -> &'static str {
        self.family.backbone
    }

    /// Whether the checkpoint has a weight for this module, its own or the one that it shares.
    pub fn holds(&self, ckpt: &Checkpoint, path: &str) -> bool {
        let there = |path: &str| ckpt.contains(&self.stored(&format!("{path}.weight")));
        there(path) || self.family.tied_to(path).is_some_and(|embedding| there(&embedding))
    }

    /// Whether `all-linear` omits this layer of a head, and training a head for sequences trains it in full: output layers,
    /// and layers that the checkpoint does not have and that therefore begin at random.
    pub fn omits(&self, ckpt: &Checkpoint, layer: &HeadLayer) -> bool {
        layer.output || !self.holds(ckpt, layer.path)
    }

    /// The name in the checkpoint of a tensor of the task model, e.g. `bert.encoder.layer.0.output.dense.weight`.
    pub fn stored(&self, path: &str) -> String {
        let mut name = match path.strip_prefix(self.family.backbone) {
            Some(rest) => format!("{}{rest}", self.stored),
            None => path.to_string(),
        };
        if self.gamma_beta {
            for (new, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")] {
                if let Some(stem) = name.strip_suffix(new) {
                    name = format!("{stem}{old}");
                }
            }
        }
        name
    }

    /// The name in the task model of a tensor of the checkpoint. Heads keep their names.
    pub fn path(&self, stored: &str) -> String {
        let mut name = match stored.strip_prefix(&self.stored) {
            Some(rest) if !self.stored.is_empty() || self.family.parts.iter().any(|p| rest.starts_with(p)) => {
                format!("{}{rest}", self.family.backbone)
            }
            _ => stored.to_string(),
        };
        for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
            if let Some(stem) = name.strip_suffix(old) {
                name = format!("{stem}{new}");
            }
        }
        name
    }
}
