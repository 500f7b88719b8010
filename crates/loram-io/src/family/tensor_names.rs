//! From the module paths of a task model (what PEFT and transformers show) to the tensor names of a checkpoint.
//!
//! A checkpoint saved from `BertModel` has `encoder.layer.0…`, one saved from `BertForSequenceClassification` has
//! `bert.encoder.layer.0…`; the path is the latter in both cases.

use super::description::Family;
use super::{registry, unknown};
use crate::config::{CONFIG_FILE, FamilyNames, HeadLayer, ModelConfig, Quantisation, read_object};
use crate::{Checkpoint, Error, Result};

/// Translation of names for one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames {
    family: &'static FamilyNames,
    /// Prefix of all names of a wrapped model, e.g. `0.auto_model.`; mostly empty.
    wrapper: String,
    /// The prefix that the checkpoint uses for the backbone after the wrapper: the family's, or empty.
    stored: &'static str,
    /// Layer norms are called `gamma` and `beta` (BERT checkpoints converted from TensorFlow).
    gamma_beta: bool,
    /// Head and embedding are tied, and the file has the weight under the name of the head alone.
    embedding_as_head: bool,
}

impl TensorNames {
    /// Finds the prefix that this checkpoint uses, by its token embedding. An error when that is not there.
    pub fn find(ckpt: &Checkpoint, cfg: &ModelConfig) -> Result<TensorNames> {
        let family = cfg.names();
        let anchor = format!("{}.weight", family.embedding);
        let mut names =
            TensorNames { gamma_beta: ckpt.names().any(|n| n.ends_with("LayerNorm.gamma")), ..plain(family) };
        let old = family.old_names.map(|(backbone, _)| backbone);
        for stored in [family.backbone, ""].into_iter().chain(old) {
            if ckpt.contains(&format!("{stored}{anchor}")) {
                names.stored = stored;
                return Ok(names);
            }
        }
        // a tied weight under the name of the head: blocks show the prefix
        if let Some((head, _)) = cfg.tied_weights().filter(|(head, _)| ckpt.contains(head)) {
            let holds = |stored: &str| {
                ckpt.names().any(|n| n != head && family.parts.iter().any(|p| n.starts_with(&format!("{stored}{p}"))))
            };
            if let Some(stored) = [family.backbone, ""].into_iter().chain(old).find(|stored| holds(stored)) {
                return Ok(TensorNames { stored, embedding_as_head: true, ..names });
            }
        }
        // wrapped models, e.g. `0.auto_model.embeddings…`
        let mut wrapped = ckpt.names().filter_map(|n| n.strip_suffix(&anchor)).filter(|p| p.ends_with('.'));
        match (wrapped.next(), wrapped.next()) {
            (Some(prefix), None) => {
                let inside = prefix.strip_suffix(family.backbone).filter(|_| !family.backbone.is_empty());
                names.stored = if inside.is_some() { family.backbone } else { "" };
                names.wrapper = inside.unwrap_or(prefix).to_string();
                Ok(names)
            }
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
    /// Errors: as [`TensorNames::find`]; a `config.json` that cannot be read or names a quantisation that is not supported.
    pub fn of(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<TensorNames> {
        if let Some(cfg) = cfg {
            return TensorNames::find(ckpt, cfg);
        }
        let path = ckpt.root().join(CONFIG_FILE);
        let raw = if path.exists() { read_object(&path)? } else { Default::default() };
        Quantisation::of(&raw, &path)?;
        let model_type = raw.get("model_type").and_then(serde_json::Value::as_str);
        // weights that are stored transposed are so without a configuration, too
        let counts = |f: &&Family| !f.runs() || !f.names.conv1d.is_empty();
        let family = match model_type.and_then(registry::find).filter(counts) {
            Some(family) => &family.names,
            None => unknown::names(ckpt, model_type),
        };
        let prefixed = ckpt.contains(&format!("{}.weight", family.embedding_path()));
        Ok(TensorNames { stored: if prefixed { family.backbone } else { "" }, ..plain(family) })
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

    /// Whether the file has a weight for the next-token head beside that of the embedding.
    pub(crate) fn has_head(&self, ckpt: &Checkpoint) -> bool {
        let head = self.family.lm_head.map(|head| self.stored(&format!("{head}.weight")));
        head.is_some_and(|head| ckpt.contains(&head) && !self.stands_for_embedding(&head))
    }

    /// Whether a tensor of the file is the tied weight of head and embedding under the name of the head.
    pub(crate) fn stands_for_embedding(&self, stored: &str) -> bool {
        self.embedding_as_head && self.stored(&format!("{}.weight", self.family.embedding_path())) == stored
    }

    /// Whether the next-token head is the embedding: the configuration ties them, and the file has no head, or one that is
    /// equal, as in transformers.
    pub fn shares_head(&self, ckpt: &Checkpoint, cfg: &ModelConfig) -> Result<bool> {
        let Some((head, embedding)) = cfg.tied_weights() else { return Ok(false) };
        if !self.has_head(ckpt) {
            return Ok(true);
        }
        let (head, embedding) = (ckpt.tensor(&self.stored(&head))?, ckpt.tensor(&self.stored(&embedding))?);
        let same_kind = (head.dtype(), head.shape()) == (embedding.dtype(), embedding.shape());
        if same_kind && head.bytes() == embedding.bytes() {
            return Ok(true);
        }
        Ok(head.shape() == embedding.shape() && head.to_f32()? == embedding.to_f32()?)
    }

    /// Whether `all-linear` omits this layer of a head, and training a head for sequences trains it in full: output layers,
    /// and layers that the checkpoint does not have and that therefore begin at random.
    pub fn omits(&self, ckpt: &Checkpoint, layer: &HeadLayer) -> bool {
        layer.output || !self.holds(ckpt, layer.path)
    }

    /// The next-token head in the task model and in a file with the names of older versions.
    fn old_head(&self) -> Option<(&'static str, &'static str)> {
        let old = self.family.old_names.filter(|(backbone, _)| *backbone == self.stored)?;
        Some((self.family.lm_head?, old.1))
    }

    /// The name in the checkpoint of a tensor of the task model, e.g. `bert.encoder.layer.0.output.dense.weight`.
    pub fn stored(&self, path: &str) -> String {
        if self.embedding_as_head
            && path.strip_suffix(".weight") == Some(&self.family.embedding_path())
            && let Some(head) = self.family.lm_head
        {
            return format!("{}{head}.weight", self.wrapper);
        }
        if let Some((new, old)) = self.old_head()
            && let Some(rest) = path.strip_prefix(new)
        {
            return format!("{}{old}{rest}", self.wrapper);
        }
        let mut name = match path.strip_prefix(self.family.backbone) {
            Some(rest) => format!("{}{}{rest}", self.wrapper, self.stored),
            None => format!("{}{path}", self.wrapper),
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
        if self.stands_for_embedding(stored) {
            return format!("{}.weight", self.family.embedding_path());
        }
        let inside = stored.strip_prefix(&self.wrapper).unwrap_or(stored);
        if let Some((new, old)) = self.old_head()
            && let Some(rest) = inside.strip_prefix(old)
        {
            return format!("{new}{rest}");
        }
        let mut name = match inside.strip_prefix(self.stored) {
            Some(rest) if !self.stored.is_empty() || self.family.parts.iter().any(|p| rest.starts_with(p)) => {
                format!("{}{rest}", self.family.backbone)
            }
            _ => inside.to_string(),
        };
        for (old, new) in [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")] {
            if let Some(stem) = name.strip_suffix(old) {
                name = format!("{stem}{new}");
            }
        }
        name
    }
}

/// The names of a family without anything before them.
fn plain(family: &'static FamilyNames) -> TensorNames {
    TensorNames { family, wrapper: String::new(), stored: "", gamma_beta: false, embedding_as_head: false }
}
