//! Llama.

use super::decoder::{self, DEFAULTS, GGUF_MODULES, NAMES};
use super::description::{Family, GgufFamily};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "llama", class_stem: "Llama", tags_tokens: true, ..NAMES },
    read: Some(read),
    gguf: Some(GgufFamily { architecture: "llama", interleaved: true, modules: GGUF_MODULES, ..GgufFamily::NEW }),
    about: "Llama 2, Llama 3.x (text), SmolLM2, and others of this architecture",
    ..Family::NEW
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS)?;
    let bias = f.bool("attention_bias", false)?;
    // Llama has no window, but a broken one says that the file is
    windows::window(f, None)?;
    let mlp_bias = f.bool("mlp_bias", false)?;
    Ok(ModelConfig::Decoder(DecoderConfig { qkv_bias: bias, o_bias: bias, mlp_bias, ..config }))
}
