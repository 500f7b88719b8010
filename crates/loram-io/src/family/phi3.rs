//! Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: fused projections, a rotary embedding of a part of each head, LongRoPE.

use super::decoder::{self, DEFAULTS, Defaults, MODULES, NAMES};
use super::description::Family;
use super::windows;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, FamilyNames, Fields, LayerKind, MlpModules, ModelConfig, PartialRotary, Projections,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "phi3", class_stem: "Phi3", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "Phi-3, Phi-3.5 (mini, medium), Phi-4, Phi-4-mini",
    ..Family::NEW
};

static OF_PHI: DecoderModules = DecoderModules {
    qkv: Projections::Fused("self_attn.qkv_proj"),
    mlp: MlpModules::Gated(Projections::Fused("mlp.gate_up_proj")),
    ..MODULES
};

const DEFAULTS_MINI: Defaults = Defaults {
    max_positions: 4096,
    eps: 1e-5,
    partial_rotary: PartialRotary::Used(1.0),
    eos: &[32_000],
    pad: Some(32_000),
    ..DEFAULTS
};

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    map.entry("original_max_position_embeddings").or_insert(4096.into());
    let config = decoder::read(&Fields { map: &map, ..*f }, &FAMILY.names, &DEFAULTS_MINI)?;
    let block = LayerKind { sliding_window: windows::window(f, None)?, ..LayerKind::PLAIN };
    Ok(DecoderConfig {
        modules: &OF_PHI,
        residual_dropout: f.f64("resid_pdrop", 0.0)?,
        layers: vec![block; config.num_layers],
        raw: f.map.clone(),
        ..config
    })
}
