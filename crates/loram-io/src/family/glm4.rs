//! GLM-4-0414: norms before and after attention and MLP, neighbouring pairs of half of each head rotated.

use super::decoder::{self, DEFAULTS, Defaults, MODULES, NAMES};
use super::description::Family;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, FamilyNames, Fields, MlpModules, ModelConfig, PartialRotary, Projections, RopeConfig,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "glm4", class_stem: "Glm4", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "GLM-4-0414, GLM-Z1-0414",
    ..Family::NEW
};

static OF_GLM: DecoderModules = DecoderModules {
    attention_out_norm: Some("post_self_attn_layernorm"),
    mlp: MlpModules::Gated(Projections::Fused("mlp.gate_up_proj")),
    mlp_out_norm: Some("post_mlp_layernorm"),
    ..MODULES
};

const DEFAULTS_9B: Defaults = Defaults {
    max_positions: 131_072,
    kv_heads: Some(2),
    head_dim: Some(128),
    eps: 1.562_5e-7,
    partial_rotary: PartialRotary::Used(0.5),
    bos: None,
    eos: &[151_329, 151_336, 151_338],
    pad: Some(151_329),
    ..DEFAULTS
};

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_9B)?;
    // null counts as missing
    let eos_token_ids = if f.get("eos_token_id").is_some() { config.eos_token_ids } else { DEFAULTS_9B.eos.to_vec() };
    Ok(DecoderConfig {
        modules: &OF_GLM,
        qkv_bias: f.bool("attention_bias", true)?,
        ropes: config.ropes.into_iter().map(|rope| RopeConfig { interleaved: true, ..rope }).collect(),
        eos_token_ids,
        ..config
    })
}
