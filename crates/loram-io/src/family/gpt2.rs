//! GPT-2 and its relatives, whose blocks hold `Conv1D` layers: they do not run here, but adapters are initialised for them.

use super::description::Family;
use crate::config::FamilyNames;

/// The `Conv1D` layers of a block.
pub(super) const CONV1D: &[&str] = &["c_attn", "c_proj", "c_fc", "q_attn"];

const NAMES: FamilyNames = FamilyNames {
    model_type: "gpt2",
    class_stem: "GPT2",
    backbone: "transformer.",
    embedding: "wte",
    parts: &["h.", "wte.", "wpe.", "ln_f."],
    lm_head: Some("lm_head"),
    old_names: None,
    tags_tokens: false,
    conv1d: CONV1D,
};

pub(super) static FAMILY: Family = Family { names: NAMES, ..Family::NEW };

pub(super) static OPENAI_GPT: Family = Family {
    names: FamilyNames {
        model_type: "openai-gpt",
        class_stem: "OpenAIGPT",
        embedding: "tokens_embed",
        parts: &["h.", "tokens_embed.", "positions_embed."],
        ..NAMES
    },
    ..Family::NEW
};

pub(super) static IMAGEGPT: Family =
    Family { names: FamilyNames { model_type: "imagegpt", class_stem: "ImageGPT", ..NAMES }, ..Family::NEW };
