//! Common to the decoder families: module names, and the fields of `config.json` that all of them have.

use crate::Result;
use crate::config::{
    Activation, CheckpointHead, DecoderConfig, DecoderModules, FamilyNames, Fields, HeadLabels, LayerKind,
    PartialRotary, parse_rope,
};
use crate::limits::MAX_SIDE;
use serde_json::Value;

/// Names that all families have in common; a family sets `model_type` and `class_stem`.
pub(super) const NAMES: FamilyNames = FamilyNames {
    model_type: "",
    class_stem: "",
    backbone: "model.",
    embedding: "embed_tokens",
    parts: &["embed_tokens.", "layers.", "norm."],
    lm_head: Some("lm_head"),
    conv1d: &[],
};

/// Modules that all families have in common.
pub(super) static MODULES: DecoderModules = DecoderModules {
    blocks: "layers",
    input_norm: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    o: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    mlp_norm: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    final_norm: "norm",
    classifier: "score",
};

/// Parts of a block in GGUF files, and the modules that they are.
pub(super) const GGUF_MODULES: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// Where the families' defaults differ (class defaults of transformers 5.23).
pub(super) struct Defaults {
    /// `max_position_embeddings`.
    pub max_positions: usize,
    /// `num_key_value_heads`; as many as query heads for `None`.
    pub kv_heads: Option<usize>,
    /// `head_dim`; `hidden_size / num_attention_heads` for `None`.
    pub head_dim: Option<usize>,
    /// `rope_theta`.
    pub theta: f64,
    /// Treatment of `partial_rotary_factor`.
    pub partial_rotary: PartialRotary,
    /// `tie_word_embeddings`.
    pub tied: bool,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: &'static [u32],
    /// `pad_token_id`.
    pub pad: Option<u32>,
}

/// Those of Llama.
pub(super) const DEFAULTS: Defaults = Defaults {
    max_positions: 2048,
    kv_heads: None,
    head_dim: None,
    theta: 10_000.0,
    partial_rotary: PartialRotary::Ignored,
    tied: false,
    bos: Some(1),
    eos: &[2],
    pad: None,
};

/// Reads the fields that all decoders have. What is left to the family is as in the plainest decoder: no biases, no norms of
/// queries and keys, and rotary attention to all tokens before in every block.
pub(super) fn read(f: &Fields<'_>, names: &'static FamilyNames, defaults: &Defaults) -> Result<DecoderConfig> {
    for moe in ["num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"] {
        if f.opt_usize(moe)?.is_some_and(|n| n > 1) {
            return Err(f.error(moe, "mixture-of-experts models are not supported"));
        }
    }
    let hidden_size = f.dim("hidden_size")?;
    let num_layers = f.layers("num_hidden_layers")?;
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
    if head_dim.checked_mul(num_heads.max(num_kv_heads)).is_none_or(|width| width > MAX_SIDE) {
        let what = format!("{num_heads} heads of width {head_dim} are more than any model has: a damaged file");
        return Err(f.error("head_dim", what));
    }
    if head_dim == 0 || head_dim % 2 == 1 {
        return Err(f.error("head_dim", format!("rotary embedding needs an even width of heads, found {head_dim}")));
    }
    let max_position_embeddings = f.usize("max_position_embeddings", defaults.max_positions)?;
    let act = f.opt_str("hidden_act")?.unwrap_or("silu");
    Ok(DecoderConfig {
        names,
        modules: &MODULES,
        vocab_size: f.dim("vocab_size")?,
        hidden_size,
        intermediate_size: f.dim("intermediate_size")?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        rms_norm_eps: f.f64("rms_norm_eps", 1e-6)?,
        rope: parse_rope(f, defaults.theta, max_position_embeddings, defaults.partial_rotary)?,
        max_position_embeddings,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: false,
        tie_word_embeddings: f.bool("tie_word_embeddings", defaults.tied)?,
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, "hidden_act", act))?,
        attention_dropout: f.f64("attention_dropout", 0.0)?,
        layers: vec![LayerKind { sliding_window: None, rope: true }; num_layers],
        bos_token_id: f.token("bos_token_id", defaults.bos)?,
        eos_token_ids: f.tokens("eos_token_id", defaults.eos)?,
        pad_token_id: f.token("pad_token_id", defaults.pad)?,
        head: CheckpointHead::parse(f, true)?,
        labels: HeadLabels::parse(f)?,
        raw: f.map.clone(),
    })
}
