//! Which linear layers a model has, read from its tensor names: no family needs to be known.

use crate::config::{Head, TensorNames};
use crate::{Checkpoint, Error, ModelConfig, Result};
use loram_core::LinearInfo;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Tensors that are matrices but no linear layers.
const EMBEDDINGS: [&str; 13] = [
    "embed_tokens",
    "embed_positions",
    "embed_in",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "embeddings",
    "embedding",
    "wte",
    "wpe",
    "shared",
    "relative_attention_bias",
    "rotary_emb",
];

/// The linear layers of the task model (`AutoModelForCausalLM`, `AutoModelForSequenceClassification`), by the module
/// paths that PEFT sees, blocks in their order.
///
/// With a config, the checkpoint's prefix is translated, heads of other tasks are left out, and output layers that are
/// tied or not in the file are included. Without one, every 2-D `….weight` that is no embedding counts. Output layers
/// (`lm_head`, `score`, `classifier`) are flagged: `all-linear` leaves them out.
///
/// Errors: a checkpoint that does not belong to the config; GPT-2's transposed `Conv1D` layers, which are refused by
/// name because their weights are `(in, out)`.
pub fn linear_modules(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Result<Vec<LinearInfo>> {
    refuse_conv1d(ckpt)?;
    let names = cfg.map(|c| TensorNames::find(ckpt, c)).transpose()?;
    let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for stored in ckpt.names().filter(|n| n.ends_with(".weight")) {
        let Some(info) = ckpt.info(stored) else { continue };
        let [n, m] = info.shape[..] else { continue };
        let path = match &names {
            Some(names) => names.path(stored),
            None => stored.to_string(),
        };
        let path = path.trim_end_matches(".weight");
        let last = path.rsplit('.').next().unwrap_or(path);
        let norm = last.to_ascii_lowercase().contains("norm") || last.starts_with("ln_");
        let embedding = EMBEDDINGS.contains(&last) || path.contains("rotary_emb");
        if !norm && !embedding && names.as_ref().is_none_or(|names| path.starts_with(names.backbone())) {
            found.insert(path.to_string(), (n, m));
        }
    }
    if let Some(cfg) = cfg {
        for (path, n, m) in head(cfg) {
            let stored = ckpt.info(&format!("{path}.weight")).map(|i| &i.shape[..]);
            let (n, m) = if let Some(&[n, m]) = stored { (n, m) } else { (n, m) };
            found.insert(path.to_string(), (n, m));
        }
    }
    let mut out: Vec<LinearInfo> =
        found.into_iter().map(|(path, (n, m))| LinearInfo { output_layer: is_output(&path), path, n, m }).collect();
    out.sort_by(|a, b| model_order(&a.path, &b.path));
    Ok(out)
}

/// Layers of the head of the task model: path, outputs, inputs.
fn head(cfg: &ModelConfig) -> Vec<(&'static str, usize, usize)> {
    let (h, labels) = (cfg.hidden_size(), cfg.labels().len());
    match cfg {
        ModelConfig::Decoder(c) if c.head == Head::SequenceClassification => vec![("score", labels, h)],
        ModelConfig::Decoder(c) => vec![("lm_head", c.vocab_size, h)],
        ModelConfig::Encoder(c) => match c.family.as_str() {
            "bert" => vec![("bert.pooler.dense", h, h), ("classifier", labels, h)],
            "distilbert" => vec![("pre_classifier", h, h), ("classifier", labels, h)],
            _ => vec![("classifier.dense", h, h), ("classifier.out_proj", labels, h)],
        },
    }
}

/// Modules that PEFT's `all-linear` leaves out: the output layer of a language model, and all layers of a classification
/// head, which are trained whole (`modules_to_save`). PEFT finds the latter by the end of their name, so that
/// DistilBERT's `pre_classifier` counts too.
fn is_output(path: &str) -> bool {
    let top = path.split('.').next().unwrap_or(path);
    matches!(path, "lm_head" | "embed_out") || matches!(top, "score" | "classifier" | "pre_classifier")
}

/// GPT-2 and its relatives store `Conv1D` weights as `(in, out)`; used as a linear layer they would be silently wrong.
fn refuse_conv1d(ckpt: &Checkpoint) -> Result<()> {
    let conv = ckpt.names().find(|n| n.ends_with(".attn.c_attn.weight") || n.ends_with(".mlp.c_fc.weight"));
    let Some(name) = conv else { return Ok(()) };
    // GPT-BigCode uses the same names for ordinary linear layers; there the longer side is the output
    let transposed = ckpt.info(name).is_some_and(|i| matches!(i.shape[..], [input, output] if output > input));
    match transposed {
        true => Err(Error::Tensor {
            name: name.to_string(),
            what: "is a transposed Conv1D layer of the GPT-2 family, which is not supported".into(),
        }),
        false => Ok(()),
    }
}

/// Orders paths as a reader expects: numbers by value, attention before the MLP, heads last.
fn model_order(a: &str, b: &str) -> Ordering {
    fn rank(part: &str) -> usize {
        const ORDER: [&str; 22] = [
            "self_attn",
            "attention",
            "self",
            "q_proj",
            "query",
            "q_lin",
            "k_proj",
            "key",
            "k_lin",
            "v_proj",
            "value",
            "v_lin",
            "o_proj",
            "out_lin",
            "mlp",
            "intermediate",
            "gate_proj",
            "lin1",
            "up_proj",
            "lin2",
            "down_proj",
            "output",
        ];
        ORDER.iter().position(|p| *p == part).unwrap_or(ORDER.len())
    }
    let top = |p: &str| !p.contains(".layer") && !p.contains(".h.") && !p.contains("blocks");
    top(a).cmp(&top(b)).then_with(|| {
        let (mut x, mut y) = (a.split('.'), b.split('.'));
        loop {
            let order = match (x.next(), y.next()) {
                (None, None) => return Ordering::Equal,
                (None, _) => Ordering::Less,
                (_, None) => Ordering::Greater,
                (Some(p), Some(q)) => match (p.parse::<u64>(), q.parse::<u64>()) {
                    (Ok(i), Ok(j)) => i.cmp(&j),
                    _ => rank(p).cmp(&rank(q)).then_with(|| p.cmp(q)),
                },
            };
            if order != Ordering::Equal {
                return order;
            }
        }
    })
}
