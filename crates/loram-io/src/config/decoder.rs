//! Decoder families: Llama, Mistral, Qwen2, Qwen3, SmolLM3 are settings of one block.

use super::fields::Fields;
use super::rope::{self, RopeConfig, RopeScaling};
use super::{Activation, Head, Labels};
use crate::Result;
use serde_json::{Map, Value};

/// `model_type` of the supported decoders.
pub const DECODER_FAMILIES: [&str; 5] = ["llama", "mistral", "qwen2", "qwen3", "smollm3"];

/// A decoder-only language model: pre-norm blocks with rotary attention and a gated MLP.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// `model_type`.
    pub family: String,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Query heads.
    pub num_heads: usize,
    /// Key and value heads; divides `num_heads`.
    pub num_kv_heads: usize,
    /// Width of a head; `num_heads · head_dim` need not be `hidden_size`.
    pub head_dim: usize,
    /// ε of the RMS norms.
    pub rms_norm_eps: f64,
    /// Rotary embedding.
    pub rope: RopeConfig,
    /// Longest sequence the model is made for, in tokens.
    pub max_position_embeddings: usize,
    /// Bias of q_proj, k_proj, v_proj.
    pub qkv_bias: bool,
    /// Bias of o_proj.
    pub o_bias: bool,
    /// Bias of gate_proj, up_proj, down_proj.
    pub mlp_bias: bool,
    /// RMS norm of each query and key head (Qwen3).
    pub qk_norm: bool,
    /// lm_head shares the embedding's weight.
    pub tie_word_embeddings: bool,
    /// Activation of the gate.
    pub hidden_act: Activation,
    /// Dropout on the attention weights in training.
    pub attention_dropout: f64,
    /// What differs between blocks; one entry per block.
    pub layers: Vec<LayerKind>,
    /// First token, if the family has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be several, may be none.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// What the checkpoint has on top.
    pub head: Head,
    /// Labels, when the head classifies.
    pub labels: Labels,
    /// The file as it was read, to be written back.
    pub raw: Map<String, Value>,
}

impl DecoderConfig {
    /// Longest input in tokens. Configs with `linear` or `dynamic` scaling name the length of pre-training; the others
    /// name the extended one.
    pub fn max_length(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor, .. } => {
                (self.max_position_embeddings as f64 * factor.max(1.0)) as usize
            }
            _ => self.max_position_embeddings,
        }
    }
}

/// What differs between the blocks of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// A token sees this many tokens including itself; `None`: all before it.
    pub sliding_window: Option<usize>,
    /// False for blocks without position information (SmolLM3's NoPE layers).
    pub rope: bool,
}

/// Where the families' defaults differ (class defaults of transformers 5.23).
struct Defaults {
    max_positions: usize,
    kv_heads: Option<usize>,
    head_dim: Option<usize>,
    theta: f64,
    tied: bool,
    bos: Option<u32>,
    eos: &'static [u32],
    pad: Option<u32>,
    sliding_window: Option<usize>,
}

const LLAMA: Defaults = Defaults {
    max_positions: 2048,
    kv_heads: None,
    head_dim: None,
    theta: 10_000.0,
    tied: false,
    bos: Some(1),
    eos: &[2],
    pad: None,
    sliding_window: None,
};
const MISTRAL: Defaults = Defaults { max_positions: 131_072, kv_heads: Some(8), sliding_window: Some(4096), ..LLAMA };
const QWEN2: Defaults =
    Defaults { max_positions: 32_768, kv_heads: Some(32), bos: None, eos: &[], sliding_window: Some(4096), ..LLAMA };
const QWEN3: Defaults = Defaults { head_dim: Some(128), ..QWEN2 };
const SMOLLM3: Defaults = Defaults {
    max_positions: 32_768,
    kv_heads: Some(4),
    theta: 2_000_000.0,
    tied: true,
    bos: Some(128_000),
    eos: &[128_001],
    pad: Some(128_004),
    ..LLAMA
};

pub(crate) fn parse(f: &Fields<'_>, family: &str) -> Result<DecoderConfig> {
    let defaults = match family {
        "mistral" => &MISTRAL,
        "qwen2" => &QWEN2,
        "qwen3" => &QWEN3,
        "smollm3" => &SMOLLM3,
        _ => &LLAMA,
    };
    for moe in ["num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"] {
        if f.opt_usize(moe)?.is_some_and(|n| n > 1) {
            return Err(f.error(moe, "mixture-of-experts models are not supported"));
        }
    }
    let hidden_size = f.dim("hidden_size")?;
    let num_layers = f.dim("num_hidden_layers")?;
    let num_heads = f.dim("num_attention_heads")?;
    let num_kv_heads = match f.map.get("num_key_value_heads") {
        None => defaults.kv_heads.unwrap_or(num_heads),
        Some(Value::Null) => num_heads,
        Some(_) => f.dim("num_key_value_heads")?,
    };
    if num_heads % num_kv_heads != 0 {
        let what = format!("{num_kv_heads} key/value heads do not divide {num_heads} attention heads");
        return Err(f.error("num_key_value_heads", what));
    }
    let head_dim = match f.opt_usize("head_dim")?.or(defaults.head_dim) {
        Some(d) => d,
        None if hidden_size % num_heads == 0 => hidden_size / num_heads,
        None => {
            let what = format!("{num_heads} heads do not divide hidden_size {hidden_size}, and there is no head_dim");
            return Err(f.error("num_attention_heads", what));
        }
    };
    if head_dim == 0 || head_dim % 2 == 1 {
        return Err(f.error("head_dim", format!("rotary embedding needs an even width of heads, found {head_dim}")));
    }
    let max_position_embeddings = f.usize("max_position_embeddings", defaults.max_positions)?;
    let bias = f.bool("attention_bias", false)?;
    let (qkv_bias, o_bias) = match family {
        "mistral" => (false, false),
        "qwen2" => (true, false),
        _ => (bias, bias),
    };
    let act = f.opt_str("hidden_act")?.unwrap_or("silu");
    Ok(DecoderConfig {
        family: family.to_string(),
        vocab_size: f.dim("vocab_size")?,
        hidden_size,
        intermediate_size: f.dim("intermediate_size")?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        rms_norm_eps: f.f64("rms_norm_eps", 1e-6)?,
        rope: rope::parse(f, defaults.theta, max_position_embeddings)?,
        max_position_embeddings,
        qkv_bias,
        o_bias,
        mlp_bias: matches!(family, "llama" | "smollm3") && f.bool("mlp_bias", false)?,
        qk_norm: family == "qwen3",
        tie_word_embeddings: f.bool("tie_word_embeddings", defaults.tied)?,
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, "hidden_act", act))?,
        attention_dropout: f.f64("attention_dropout", 0.0)?,
        layers: layers(f, family, num_layers, defaults)?,
        bos_token_id: f.token("bos_token_id", defaults.bos)?,
        eos_token_ids: f.tokens("eos_token_id", defaults.eos)?,
        pad_token_id: f.token("pad_token_id", defaults.pad)?,
        head: Head::parse(f, true)?,
        labels: Labels::parse(f)?,
        raw: f.map.clone(),
    })
}

fn layers(f: &Fields<'_>, family: &str, n: usize, defaults: &Defaults) -> Result<Vec<LayerKind>> {
    let window = match f.map.get("sliding_window") {
        None => defaults.sliding_window,
        Some(_) => f.opt_usize("sliding_window")?,
    };
    if window == Some(0) {
        return Err(f.error("sliding_window", "must be at least 1, or null for none"));
    }
    let full = LayerKind { sliding_window: None, rope: true };
    match family {
        "llama" => return Ok(vec![full; n]),
        "mistral" => return Ok(vec![LayerKind { sliding_window: window, rope: true }; n]),
        _ => {}
    }
    let used = f.bool("use_sliding_window", false)?;
    let rope = match family {
        "smollm3" => rope_layers(f, n)?,
        _ => vec![true; n],
    };
    let slides: Vec<bool> = match f.get("layer_types") {
        Some(types) => {
            let types = types.as_array().ok_or_else(|| f.error("layer_types", "expected a list"))?;
            if types.len() != n {
                return Err(f.error("layer_types", format!("{} entries for {n} layers", types.len())));
            }
            types
                .iter()
                .map(|t| match t.as_str() {
                    Some("full_attention") => Ok(false),
                    Some("sliding_attention") => Ok(true),
                    _ => Err(f.error(
                        "layer_types",
                        format!("{t} is not supported; supported: \"full_attention\", \"sliding_attention\""),
                    )),
                })
                .collect::<Result<_>>()?
        }
        None if !used || window.is_none() => vec![false; n],
        None if family == "smollm3" => rope.iter().map(|r| !r).collect(),
        None => {
            let first = f.usize("max_window_layers", 28)?;
            (0..n).map(|i| i >= first).collect()
        }
    };
    // Qwen ignores the window unless use_sliding_window is set; SmolLM3 applies it wherever layer_types says so
    let window = window.filter(|_| used || family == "smollm3");
    if slides.contains(&true) && window.is_none() {
        return Err(f.error("layer_types", "asks for sliding attention, but no sliding window is set and in use"));
    }
    Ok(slides
        .into_iter()
        .zip(rope)
        .map(|(slides, rope)| LayerKind { sliding_window: window.filter(|_| slides), rope })
        .collect())
}

/// SmolLM3: 1 in `no_rope_layers` means that the layer does use rotary embedding (the name is upstream's).
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
