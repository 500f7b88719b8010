//! LFM2 and LFM2.5: short convolutions between gates in place of attention in most blocks.

use super::decoder::{self, DEFAULTS, Defaults, MODULES, NAMES};
use super::description::Family;
use crate::Result;
use crate::config::{
    ConvolutionConfig, ConvolutionModules, DecoderConfig, DecoderModules, FamilyNames, Fields, LayerKind, Mixer,
    MlpModules, ModelConfig, Projections, QkNorm,
};
use crate::limits::MAX_SIDE;
use serde_json::Value;

pub(super) static FAMILY: Family = Family {
    names: FamilyNames {
        model_type: "lfm2",
        class_stem: "Lfm2",
        parts: &["embed_tokens.", "layers.", "embedding_norm."],
        ..NAMES
    },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "LFM2, LFM2.5 (text)",
    ..Family::NEW
};

static OF_LFM2: DecoderModules = DecoderModules {
    input_norm: Some("operator_norm"),
    o: "self_attn.out_proj",
    q_norm: "self_attn.q_layernorm",
    k_norm: "self_attn.k_layernorm",
    mlp_norm: Some("ffn_norm"),
    mlp: MlpModules::Gated(Projections::Apart(["feed_forward.w1", "feed_forward.w3"])),
    down: "feed_forward.w2",
    convolution: Some(ConvolutionModules { input: "conv.in_proj", kernel: "conv.conv", output: "conv.out_proj" }),
    final_norm: "embedding_norm",
    ..MODULES
};

const DEFAULTS_LFM2: Defaults =
    Defaults { max_positions: 128_000, kv_heads: Some(8), theta: 1e6, eps: 1e-5, tied: true, pad: Some(0), ..DEFAULTS };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    map.insert("intermediate_size".into(), intermediate_size(f)?.into());
    map.insert("rms_norm_eps".into(), f.f64("norm_eps", DEFAULTS_LFM2.eps)?.into());
    if let Some(tied) = f.get("tie_embedding") {
        map.insert("tie_word_embeddings".into(), tied.clone());
    }
    let config = decoder::read(&Fields { map: &map, ..*f }, &FAMILY.names, &DEFAULTS_LFM2)?;
    let length = if f.get("conv_L_cache").is_some() { f.dim("conv_L_cache")? } else { 3 };
    let attends = attending(f, config.num_layers)?;
    let mixer = |attends: bool| if attends { Mixer::Attention } else { Mixer::Convolution };
    let layers = attends.into_iter().map(|attends| LayerKind { mixer: mixer(attends), ..LayerKind::PLAIN }).collect();
    Ok(DecoderConfig {
        modules: &OF_LFM2,
        qk_norm: QkNorm::Heads,
        convolution: Some(ConvolutionConfig { length, bias: f.bool("conv_bias", false)? }),
        layers,
        raw: f.map.clone(),
        ..config
    })
}

/// The width inside the MLP: two thirds of what the file says, as a whole multiple, unless `block_auto_adjust_ff_dim` is false.
fn intermediate_size(f: &Fields<'_>) -> Result<usize> {
    let field = if f.get("block_ff_dim").is_some() { "block_ff_dim" } else { "intermediate_size" };
    let width = if f.get(field).is_some() { f.dim(field)? } else { 12_288 };
    if !f.bool("block_auto_adjust_ff_dim", true)? {
        return Ok(width);
    }
    let multiplier = match f.map.get("block_ffn_dim_multiplier") {
        Some(Value::Null) => return Ok(2 * width / 3),
        _ => f.f64("block_ffn_dim_multiplier", 1.0)?,
    };
    let scaled = multiplier * (2 * width / 3) as f64;
    if !(scaled >= 1.0 && scaled <= MAX_SIDE as f64) {
        return Err(f.error("block_ffn_dim_multiplier", format!("makes an MLP of width {scaled}")));
    }
    let of = if f.get("block_multiple_of").is_some() { f.dim("block_multiple_of")? } else { 256 };
    Ok((scaled as usize).next_multiple_of(of))
}

/// True for each block with attention.
fn attending(f: &Fields<'_>, n: usize) -> Result<Vec<bool>> {
    if let Some(types) = f.get("layer_types") {
        let types = types.as_array().ok_or_else(|| f.error("layer_types", "expected a list"))?;
        if types.len() != n {
            return Err(f.error("layer_types", format!("{} entries for {n} layers", types.len())));
        }
        let of = |t: &Value| match t.as_str() {
            Some("full_attention") => Ok(true),
            Some("conv") => Ok(false),
            _ => Err(f.error("layer_types", format!("{t} is not supported; supported: \"full_attention\", \"conv\""))),
        };
        return types.iter().map(of).collect();
    }
    let Some(list) = f.get("full_attn_idxs") else { return Ok(vec![true; n]) };
    let wrong = || f.error("full_attn_idxs", format!("expected a list of the numbers of blocks, found {list}"));
    let numbers = list.as_array().ok_or_else(wrong)?;
    let numbers = numbers.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>().ok_or_else(wrong)?;
    Ok((0..n as u64).map(|i| numbers.contains(&i)).collect())
}
