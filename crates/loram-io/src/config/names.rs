//! From the module paths of a task model (what PEFT and transformers show) to the tensor names of a checkpoint.
//!
//! A checkpoint saved from `BertModel` has `encoder.layer.0…`, one saved from `BertForSequenceClassification` has
//! `bert.encoder.layer.0…`; the path is the latter in both cases.

use super::{CONFIG_FILE, ModelConfig, read_object};
use crate::{Checkpoint, Error, Result};

/// Architectures whose blocks hold `Conv1D` layers, with the prefix of their backbone and the name of their embedding.
const CONV1D_FAMILIES: [(&str, &str, &str); 3] = [
    ("gpt2", "transformer.", "wte.weight"),
    ("openai-gpt", "transformer.", "tokens_embed.weight"),
    ("imagegpt", "transformer.", "wte.weight"),
];

/// Translation of names for one checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorNames {
    /// Prefix of the backbone in the task model, e.g. `model.` or `bert.`.
    backbone: &'static str,
    /// The prefix that the checkpoint uses for it, often the same, or empty.
    stored: String,
    /// Layer norms are called `gamma` and `beta` (BERT checkpoints converted from TensorFlow).
    gamma_beta: bool,
    /// Layers of the blocks are GPT-2's `Conv1D`, which stores its weight as (in, out).
    conv1d: bool,
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
                return Ok(TensorNames { backbone, stored: stored.to_string(), gamma_beta, conv1d: false });
            }
        }
        // wrapped models, e.g. `0.auto_model.embeddings…`
        let mut wrapped = ckpt.names().filter_map(|n| n.strip_suffix(anchor)).filter(|p| p.ends_with('.'));
        match (wrapped.next(), wrapped.next()) {
            (Some(stored), None) => Ok(TensorNames { backbone, stored: stored.to_string(), gamma_beta, conv1d: false }),
            _ => Err(Error::NoTensor {
                path: ckpt.root().to_path_buf(),
                name: format!("{backbone}{anchor}"),
                hint: format!(": these are not the weights of a `{}` model", cfg.family()),
            }),
        }
    }

    /// Names of a checkpoint whose architecture need not be one that runs here: those of `cfg` when it is given, those of
    /// GPT-2 and its relatives, else the tensor names as they are.
    ///
    /// Errors: as [`TensorNames::find`]; a `config.json` that cannot be read or says that the weights are quantised.
    pub fn of(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<TensorNames> {
        if let Some(cfg) = cfg {
            return TensorNames::find(ckpt, cfg);
        }
        let path = ckpt.root().join(CONFIG_FILE);
        let raw = if path.exists() { read_object(&path)? } else { Default::default() };
        super::refuse_quantised(&raw, &path)?;
        let family = raw.get("model_type").and_then(serde_json::Value::as_str);
        let plain = TensorNames { backbone: "", stored: String::new(), gamma_beta: false, conv1d: false };
        let known = CONV1D_FAMILIES.iter().find(|f| Some(f.0) == family);
        Ok(match known {
            Some(&(_, backbone, anchor)) => {
                let stored = if ckpt.contains(&format!("{backbone}{anchor}")) { backbone } else { "" };
                TensorNames { backbone, stored: stored.into(), conv1d: true, ..plain }
            }
            None => TensorNames { conv1d: family.is_none() && looks_like_conv1d(ckpt), ..plain },
        })
    }

    /// Whether the weight of this module is stored as (in, out).
    pub fn is_transposed(&self, path: &str) -> bool {
        const LAYERS: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
        self.conv1d && path.rsplit('.').next().is_some_and(|last| LAYERS.contains(&last))
    }

    /// Prefix of the backbone in module paths: `model.`, `bert.`, `roberta.`, `distilbert.`, `transformer.` or nothing.
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
        "transformer." => &["h.", "wte.", "wpe.", "ln_f.", "tokens_embed.", "positions_embed."],
        _ => &["embeddings.", "encoder.", "pooler."],
    };
    parts.iter().any(|p| name.starts_with(p))
}

/// Without a `config.json`: GPT-BigCode uses GPT-2's names for ordinary linear layers, whose longer side is the output.
fn looks_like_conv1d(ckpt: &Checkpoint) -> bool {
    let wide = |n: &str| ckpt.info(n).is_some_and(|i| matches!(i.shape[..], [input, output] if output > input));
    ckpt.names().any(|n| (n.ends_with(".attn.c_attn.weight") || n.ends_with(".mlp.c_fc.weight")) && wide(n))
}
