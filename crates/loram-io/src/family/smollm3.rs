//! SmolLM3: some blocks without rotary embedding.

use super::decoder::{self, DEFAULTS, Defaults, GGUF_MODULES, NAMES};
use super::description::{Family, GgufFamily};
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, LayerKind, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "smollm3", class_stem: "SmolLM3", tags_tokens: true, ..NAMES },
    read: Some(read),
    gguf: Some(GgufFamily { architecture: "smollm3", interleaved: true, modules: GGUF_MODULES, ..GgufFamily::NEW }),
    about: "SmolLM3",
    ..Family::NEW
};

const DEFAULTS_3B: Defaults = Defaults {
    max_positions: 32_768,
    kv_heads: Some(4),
    theta: 2_000_000.0,
    tied: true,
    bos: Some(128_000),
    eos: &[128_001],
    pad: Some(128_004),
    ..DEFAULTS
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_3B)?;
    let bias = f.bool("attention_bias", false)?;
    Ok(ModelConfig::Decoder(DecoderConfig {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: f.bool("mlp_bias", false)?,
        layers: blocks(f, config.num_layers)?,
        ..config
    }))
}

/// A window applies wherever `layer_types` says so; without them, with `use_sliding_window`, in the blocks that have no
/// rotary embedding.
fn blocks(f: &Fields<'_>, n: usize) -> Result<Vec<LayerKind>> {
    let window = windows::window(f, None)?;
    let used = f.bool("use_sliding_window", false)?;
    let rope = rope_layers(f, n)?;
    let slides = match windows::layer_types(f, n)? {
        Some(slides) => slides,
        None if used && window.is_some() => rope.iter().map(|r| !r).collect(),
        None => vec![false; n],
    };
    windows::blocks(f, &slides, &rope, window)
}

/// The blocks with rotary embedding: 1 in `no_rope_layers` means that the layer does use it (the name is upstream's).
fn rope_layers(f: &Fields<'_>, n: usize) -> Result<Vec<bool>> {
    let Some(list) = f.get("no_rope_layers") else {
        let every = f.usize("no_rope_layer_interval", 4)?;
        if every == 0 {
            return Err(f.error("no_rope_layer_interval", "must be at least 1"));
        }
        return Ok((1..=n).map(|i| i % every != 0).collect());
    };
    let list = list.as_array().filter(|l| l.len() >= n);
    let list = list.ok_or_else(|| f.error("no_rope_layers", format!("expected a list of at least {n} entries")))?;
    list[..n]
        .iter()
        .map(|v| {
            v.as_u64().map(|x| x != 0).or(v.as_bool()).ok_or_else(|| f.error("no_rope_layers", "expected 0s and 1s"))
        })
        .collect()
}
