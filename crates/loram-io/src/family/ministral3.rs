//! Ministral 3: a Mistral whose queries grow with their position beyond the length of pre-training, alone and as the text tower of
//! checkpoints with images.

use super::decoder::{self, DEFAULTS, Defaults, NAMES};
use super::description::Family;
use super::{tower, windows};
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, LayerKind, ModelConfig, QueryGrowth, RopeConfig};
use serde_json::json;

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "ministral3", class_stem: "Ministral3", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "Ministral 3 (text)",
    ..Family::NEW
};

/// Text and images; the text tower is read.
pub(super) static TOWER: Family = Family {
    names: FamilyNames { model_type: "mistral3", class_stem: "Mistral3", ..tower::NAMES },
    text_tower: Some("mistral"),
    about: "Ministral 3, Mistral Small 3.1 and later (the text tower)",
    ..Family::NEW
};

const DEFAULTS_8B: Defaults = Defaults {
    max_positions: 262_144,
    kv_heads: Some(8),
    head_dim: Some(128),
    eps: 1e-5,
    theta: 1e6,
    pad: Some(11),
    ..DEFAULTS
};

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    if f.get("rope_parameters").is_none() && f.get("rope_scaling").is_none() {
        let yarn = json!({
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16_384,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale_all_dim": 1.0, "mscale": 1.0, "llama_4_scaling_beta": 0.1,
        });
        map.insert("rope_parameters".into(), yarn);
    }
    let raw = f.map.clone();
    let f = &Fields { map: &map, ..*f };
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_8B)?;
    let object = match f.object("rope_scaling")? {
        Some(m) => Some(m),
        None => f.object("rope_parameters")?,
    };
    let empty = serde_json::Map::new();
    let rope = Fields { map: object.unwrap_or(&empty), path: f.path, prefix: "rope_parameters." };
    let growth = match rope.opt_f64("llama_4_scaling_beta")? {
        Some(beta) if beta != 0.0 => {
            let length = rope.usize("original_max_position_embeddings", config.max_position_embeddings)?;
            Some(QueryGrowth { beta, length: length.max(1) })
        }
        _ => None,
    };
    let block = LayerKind { sliding_window: windows::window(f, None)?, ..LayerKind::PLAIN };
    Ok(DecoderConfig {
        ropes: config.ropes.into_iter().map(|rope| RopeConfig { query_growth: growth, ..rope }).collect(),
        layers: vec![block; config.num_layers],
        raw,
        ..config
    })
}
