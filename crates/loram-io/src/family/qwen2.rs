//! Qwen2 and Qwen2.5: biases of queries, keys and values.

use super::decoder::{self, DEFAULTS, Defaults, GGUF_MODULES, NAMES};
use super::description::{Family, GgufFamily};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "qwen2", class_stem: "Qwen2", tags_tokens: true, ..NAMES },
    read: Some(read),
    gguf: Some(GgufFamily { architecture: "qwen2", interleaved: false, modules: GGUF_MODULES, ..GgufFamily::NEW }),
    about: "Qwen2, Qwen2.5",
    ..Family::NEW
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults { max_positions: 32_768, kv_heads: Some(32), bos: None, eos: &[], ..DEFAULTS };
    let config = decoder::read(f, &FAMILY.names, &defaults)?;
    let layers = windows::qwen(f, config.num_layers)?;
    Ok(ModelConfig::Decoder(DecoderConfig { qkv_bias: true, layers, ..config }))
}
