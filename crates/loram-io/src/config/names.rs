//! From the module paths of a task model (what PEFT and transformers show) to the tensor names of a checkpoint.
//!
//! A checkpoint saved from `BertModel` has `encoder.layer.0…`, one saved from `BertForSequenceClassification` has
//! `bert.encoder.layer.0…`; the path is the latter in both cases.

use super::ModelConfig;
use crate::{Checkpoint, Error, Result};

/// Translation of names for one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames {
    /// Prefix of the backbone in the task model, e.g. `model.` or `bert.`.
    backbone: &'static str,
    /// The prefix that the checkpoint uses for it, often the same, or empty.
    stored: String,
    /// Layer norms are called `gamma` and `beta` (BERT checkpoints converted from TensorFlow).
    gamma_beta: bool,
}

impl TensorNames {
    /// Finds the prefix that this checkpoint uses, by its token embedding. An error when that is not there.
    pub fn find(ckpt: &Checkpoint, cfg: &ModelConfig) -> Result<TensorNames> {
        let (backbone, anchor) = match cfg {
            ModelConfig::Decoder(_) => ("model.", "embed_tokens.weight"),
            ModelConfig::Encoder(c) => (
                match c.family.as_str() {
                    "bert" => "bert.",
                    "distilbert" => "distilbert.",
                    _ => "roberta.",
                },
                "embeddings.word_embeddings.weight",
            ),
        };
        let gamma_beta = ckpt.names().any(|n| n.ends_with("LayerNorm.gamma"));
        for stored in [backbone, ""] {
            if ckpt.contains(&format!("{stored}{anchor}")) {
                return Ok(TensorNames { backbone, stored: stored.to_string(), gamma_beta });
            }
        }
        // wrapped models, e.g. `0.auto_model.embeddings…`
        let mut wrapped = ckpt.names().filter_map(|n| n.strip_suffix(anchor)).filter(|p| p.ends_with('.'));
        match (wrapped.next(), wrapped.next()) {
            (Some(stored), None) => Ok(TensorNames { backbone, stored: stored.to_string(), gamma_beta }),
            _ => Err(Error::NoTensor {
                path: ckpt.root().to_path_buf(),
                name: format!("{backbone}{anchor}"),
                hint: format!(": these are not the weights of a `{}` model", cfg.family()),
            }),
        }
    }

    /// Prefix of the backbone in module paths: `model.`, `bert.`, `roberta.` or `distilbert.`.
    pub fn backbone(&self) -> &'static str {
        self.backbone
    }

    /// The name in the checkpoint of a tensor of the task model, e.g. `bert.encoder.layer.0.output.dense.weight`.
    pub fn stored(&self, path: &str) -> String {
        let mut name = match path.strip_prefix(self.backbone) {
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
            Some(rest) if !self.stored.is_empty() || is_backbone(self.backbone, rest) => {
                format!("{}{rest}", self.backbone)
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

/// Whether a name without prefix belongs to the backbone rather than to a head.
fn is_backbone(backbone: &str, name: &str) -> bool {
    let parts: &[&str] = match backbone {
        "model." => &["embed_tokens.", "layers.", "norm."],
        "distilbert." => &["embeddings.", "transformer."],
        _ => &["embeddings.", "encoder.", "pooler."],
    };
    parts.iter().any(|p| name.starts_with(p))
}
