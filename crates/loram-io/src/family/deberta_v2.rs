//! DeBERTa-v2 and v3: BERT with disentangled attention, whose scores have terms of content and of relative position apart.

use super::description::Family;
use super::encoder::{KEYS, MODULES, NAMES, read as read_encoder};
use crate::Result;
use crate::config::{
    Activation, ClassifierModules, EncoderConfig, EncoderModules, FamilyNames, Fields, ModelConfig, Projections,
    RelativeModules, RelativePositions,
};
use crate::limits::MAX_SIDE;
use serde_json::Value;

pub(super) static FAMILY: Family = Family {
    names: FamilyNames {
        model_type: "deberta-v2",
        class_stem: "DebertaV2",
        backbone: "deberta.",
        parts: &["embeddings.", "encoder."],
        ..NAMES
    },
    read: Some(read),
    about: "DeBERTa-v3 and DeBERTa-v2 without convolution, mDeBERTa (on the CPU)",
    ..Family::NEW
};

static OF_DEBERTA: EncoderModules = EncoderModules {
    qkv: Projections::Apart(["attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"]),
    relative: RelativeModules {
        embedding: "encoder.rel_embeddings",
        norm: "encoder.LayerNorm",
        k: "attention.self.pos_key_proj",
        q: "attention.self.pos_query_proj",
    },
    classifier: ClassifierModules { dense: "pooler.dense", dense_module: "pooler", ..MODULES.classifier },
    ..MODULES
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let config = read_encoder(f, &FAMILY.names, &OF_DEBERTA, &KEYS)?;
    if f.usize("conv_kernel_size", 0)? > 0 {
        return Err(
            f.error("conv_kernel_size", "the convolution beside the first block (DeBERTa-v2 xlarge) is not supported")
        );
    }
    for (field, own) in [
        ("embedding_size", config.hidden_size),
        ("pooler_hidden_size", config.hidden_size),
        ("attention_head_size", config.head_dim()),
    ] {
        if let Some(n) = f.opt_usize(field)?.filter(|n| *n != own) {
            return Err(f.error(field, format!("{n} is not supported, only {own} as of the other fields")));
        }
    }
    let act = f.opt_str("pooler_hidden_act")?.unwrap_or("gelu");
    let kinds = attention_types(f)?;
    let terms = 1 + kinds.iter().filter(|kind| **kind).count();
    let hidden_dropout = config.token_dropout;
    Ok(ModelConfig::Encoder(EncoderConfig {
        type_vocab_size: f.usize("type_vocab_size", 0)?,
        layer_norm_eps: f.f64("layer_norm_eps", 1e-7)?,
        has_positions: f.bool("position_biased_input", true)?,
        attention_scale: 1.0 / ((config.head_dim() * terms) as f64).sqrt(),
        relative: match f.bool("relative_attention", false)? {
            true => Some(relative(f, kinds, config.max_position_embeddings)?),
            false => None,
        },
        classifier_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, "pooler_hidden_act", act))?,
        classifier_input_dropout: f.f64("pooler_dropout", 0.0)?,
        classifier_dropout: f.opt_f64("cls_dropout")?.unwrap_or(hidden_dropout),
        ..config
    }))
}

/// The terms beside that of the content: content to position, and position to content.
fn attention_types(f: &Fields<'_>) -> Result<[bool; 2]> {
    let names: Vec<String> = match f.get("pos_att_type") {
        None => Vec::new(),
        Some(Value::String(names)) => names.to_lowercase().split('|').map(|name| name.trim().to_string()).collect(),
        Some(Value::Array(list)) => list.iter().map(|name| name.as_str().unwrap_or_default().to_string()).collect(),
        Some(other) => return Err(f.error("pos_att_type", format!("expected a list of names, found {other}"))),
    };
    if let Some(other) = names.iter().find(|name| !["c2p", "p2c", ""].contains(&name.as_str())) {
        return Err(f.error("pos_att_type", format!("`{other}` is not supported, only c2p and p2c")));
    }
    Ok(["c2p", "p2c"].map(|kind| names.iter().any(|name| name == kind)))
}

fn relative(f: &Fields<'_>, [c2p, p2c]: [bool; 2], positions: usize) -> Result<RelativePositions> {
    // transformers writes −1 for none
    let count = |field: &str| -> Result<Option<usize>> {
        let n = f.opt_f64(field)?.filter(|n| *n >= 1.0);
        match n {
            Some(n) if n > MAX_SIDE as f64 || n.fract() != 0.0 => {
                Err(f.error(field, format!("expected a whole number, found {n}")))
            }
            n => Ok(n.map(|n| n as usize)),
        }
    };
    let max_distance = count("max_relative_positions")?.unwrap_or(positions);
    let buckets = count("position_buckets")?;
    if buckets.is_some_and(|b| b < 4 || max_distance <= b / 2 + 1) {
        let what = format!("expected at least 4, with max_relative_positions ({max_distance}) beyond their half");
        return Err(f.error("position_buckets", what));
    }
    let norms = f.opt_str("norm_rel_ebd")?.unwrap_or("none").to_lowercase();
    Ok(RelativePositions {
        span: buckets.unwrap_or(max_distance),
        buckets,
        max_distance,
        c2p,
        p2c,
        shares_projections: f.bool("share_att_key", false)?,
        norm: norms.split('|').any(|norm| norm.trim() == "layer_norm"),
    })
}
