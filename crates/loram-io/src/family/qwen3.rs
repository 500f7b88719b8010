//! Qwen3: norms of the query and key heads.

use super::decoder::{self, DEFAULTS, Defaults, GGUF_MODULES, NAMES};
use super::description::{Family, GgufFamily};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, ModelConfig, QkNorm};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "qwen3", class_stem: "Qwen3", tags_tokens: true, ..NAMES },
    read: Some(read),
    gguf: Some(GgufFamily { architecture: "qwen3", interleaved: false, modules: GGUF_MODULES, ..GgufFamily::NEW }),
    about: "Qwen3 (dense)",
    ..Family::NEW
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let defaults =
        Defaults { max_positions: 32_768, kv_heads: Some(32), head_dim: Some(128), bos: None, eos: &[], ..DEFAULTS };
    let config = decoder::read(f, &FAMILY.names, &defaults)?;
    let bias = f.bool("attention_bias", false)?;
    let layers = windows::qwen(f, config.num_layers)?;
    Ok(ModelConfig::Decoder(DecoderConfig { qkv_bias: bias, o_bias: bias, qk_norm: QkNorm::Heads, layers, ..config }))
}
