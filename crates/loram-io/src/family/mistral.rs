//! Mistral: a sliding window in every block.

use super::decoder::{self, DEFAULTS, Defaults, GGUF_MODULES, NAMES};
use super::description::{Family, GgufFamily};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, LayerKind, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "mistral", class_stem: "Mistral", tags_tokens: true, ..NAMES },
    read: Some(read),
    gguf: Some(GgufFamily { architecture: "llama", interleaved: true, modules: GGUF_MODULES, ..GgufFamily::NEW }),
    about: "Mistral 7B and others",
    ..Family::NEW
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let defaults = Defaults { max_positions: 131_072, kv_heads: Some(8), ..DEFAULTS };
    let config = decoder::read(f, &FAMILY.names, &defaults)?;
    let block = LayerKind { sliding_window: windows::window(f, Some(4096))?, ..LayerKind::PLAIN };
    Ok(ModelConfig::Decoder(DecoderConfig { layers: vec![block; config.num_layers], ..config }))
}
