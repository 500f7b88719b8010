//! Architectures without a description, and checkpoints without a `config.json`: names are taken as they are in the file.

use super::gpt2;
use crate::Checkpoint;
use crate::config::FamilyNames;

const NAMES: FamilyNames = FamilyNames {
    model_type: "",
    class_stem: "",
    causal_class: "ForCausalLM",
    backbone: "",
    embedding: "model.embed_tokens",
    parts: &[],
    lm_head: Some("lm_head"),
    old_names: None,
    tags_tokens: false,
    conv1d: &[],
    tables: &["rotary_emb.inv_freq"],
};

static PLAIN: FamilyNames = NAMES;
static LIKE_GPT2: FamilyNames = FamilyNames { conv1d: gpt2::CONV1D, ..NAMES };

/// The names of a checkpoint with the given `model_type`, which no family has.
pub(super) fn names(ckpt: &Checkpoint, model_type: Option<&str>) -> &'static FamilyNames {
    if model_type.is_none() && looks_like_conv1d(ckpt) { &LIKE_GPT2 } else { &PLAIN }
}

/// Whether a module is an output layer by its path: that of a language model, or a layer of a classification head.
pub(crate) fn is_output(path: &str) -> bool {
    const LM_HEADS: [&str; 2] = ["lm_head", "embed_out"];
    const CLASSIFIERS: [&str; 3] = ["score", "classifier", "pre_classifier"];
    let top = path.split('.').next().unwrap_or(path);
    LM_HEADS.contains(&path) || CLASSIFIERS.contains(&top)
}

/// Without a `config.json`: GPT-BigCode uses GPT-2's names for ordinary linear layers, whose longer side is the output.
fn looks_like_conv1d(ckpt: &Checkpoint) -> bool {
    let wide = |n: &str| ckpt.info(n).is_some_and(|i| matches!(i.shape[..], [input, output] if output > input));
    ckpt.names().any(|n| (n.ends_with(".attn.c_attn.weight") || n.ends_with(".mlp.c_fc.weight")) && wide(n))
}
