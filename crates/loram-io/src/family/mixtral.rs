//! Mixtral: Mistral with a mixture of experts in every block.

use super::decoder::{self, Defaults, MODULES, NAMES};
use super::description::Family;
use super::experts::{self, ExpertFields};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, DecoderModules, ExpertModules, FamilyNames, Fields, LayerKind, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "mixtral", class_stem: "Mixtral", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "Mixtral 8x7B, 8x22B",
    ..Family::NEW
};

static OF_MIXTRAL: DecoderModules = DecoderModules {
    experts: Some(ExpertModules {
        places: &[("mlp.gate", "mlp.experts"), ("block_sparse_moe.gate", "block_sparse_moe.experts")],
        layers: Some(["w1", "w3", "w2"]),
        alternating: false,
    }),
    ..MODULES
};

const DEFAULTS_8X7B: Defaults =
    Defaults { max_positions: 131_072, kv_heads: Some(8), theta: 1e6, eps: 1e-5, ..experts::DEFAULTS };

const EXPERTS: ExpertFields = ExpertFields { count: &["num_local_experts", "num_experts"], defaults: (8, 2) };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_8X7B)?;
    let mixture = experts::read(f, &EXPERTS, config.intermediate_size, experts::gate(&config))?;
    let block = LayerKind { sliding_window: windows::window(f, None)?, experts: true, ..LayerKind::PLAIN };
    Ok(DecoderConfig { modules: &OF_MIXTRAL, experts: Some(mixture), layers: vec![block; config.num_layers], ..config })
}
