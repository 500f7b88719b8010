//! Common to the decoder families: module names, and the fields of `config.json` that all of them have.

use crate::Result;
use crate::config::{
    Activation, CheckpointHead, DecoderConfig, DecoderModules, FamilyNames, Fields, HeadLabels, LayerKind, MlpModules,
    NormKind, PartialRotary, PoolingMode, Projections, QkNorm, RopeConfig, RopeDefaults, RopeScaling, parse_rope,
};
use crate::limits::MAX_SIDE;
use serde_json::Value;

/// Names that all families have in common; a family sets `model_type` and `class_stem`.
pub(super) const NAMES: FamilyNames = FamilyNames {
    model_type: "",
    class_stem: "",
    causal_class: "ForCausalLM",
    backbone: "model.",
    embedding: "embed_tokens",
    parts: &["embed_tokens.", "layers.", "norm."],
    lm_head: Some("lm_head"),
    old_names: None,
    tags_tokens: false,
    conv1d: &[],
    tables: &["rotary_emb.inv_freq"],
};

/// Modules that all families have in common.
pub(super) const MODULES: DecoderModules = DecoderModules {
    blocks: "layers",
    input_norm: Some("input_layernorm"),
    qkv: Projections::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    o: "self_attn.o_proj",
    sinks: None,
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attention_out_norm: None,
    mlp_norm: Some("post_attention_layernorm"),
    mlp: MlpModules::Gated(Projections::Apart(["mlp.gate_proj", "mlp.up_proj"])),
    mlp_out_norm: None,
    down: "mlp.down_proj",
    experts: None,
    convolution: None,
    positions: None,
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

/// Those of families without modules of their own.
static PLAIN: DecoderModules = MODULES;

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
    /// `rms_norm_eps`.
    pub eps: f64,
    /// The field that names the activation, and its value.
    pub act_key: &'static str,
    pub act: &'static str,
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
    /// The family has mixtures of experts, which it reads itself.
    pub experts: bool,
}

/// Those of Llama.
pub(super) const DEFAULTS: Defaults = Defaults {
    max_positions: 2048,
    kv_heads: None,
    head_dim: None,
    theta: 10_000.0,
    eps: 1e-6,
    act_key: "hidden_act",
    act: "silu",
    partial_rotary: PartialRotary::Ignored,
    tied: false,
    bos: Some(1),
    eos: &[2],
    pad: None,
    experts: false,
};

/// Reads the fields that all decoders have. What is left to the family is as in the plainest decoder: no biases, no norms of
/// queries and keys, and rotary attention to all tokens before in every block.
pub(super) fn read(f: &Fields<'_>, names: &'static FamilyNames, defaults: &Defaults) -> Result<DecoderConfig> {
    for moe in ["num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"] {
        if !defaults.experts && f.opt_usize(moe)?.is_some_and(|n| n > 1) {
            return Err(f.error(moe, "mixtures of experts are not supported in this architecture"));
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
        None => width_of_heads(f, "num_attention_heads", hidden_size, num_heads)?,
    };
    if head_dim.checked_mul(num_heads.max(num_kv_heads)).is_none_or(|width| width > MAX_SIDE) {
        let what = format!("{num_heads} heads of width {head_dim} are more than any model has: a damaged file");
        return Err(f.error("head_dim", what));
    }
    if head_dim == 0 || head_dim % 2 == 1 {
        return Err(f.error("head_dim", format!("rotary embedding needs an even width of heads, found {head_dim}")));
    }
    let max_position_embeddings = f.usize("max_position_embeddings", defaults.max_positions)?;
    let rope = RopeDefaults { theta: defaults.theta, partial_rotary: defaults.partial_rotary };
    let act = f.opt_str(defaults.act_key)?.unwrap_or(defaults.act);
    let rope = parse_rope(f, &rope, max_position_embeddings)?;
    check_rope(f, &rope, head_dim)?;
    // these two kinds name the length of pre-training, the others the extended one
    let max_length = match rope.scaling {
        RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor, .. } => {
            (max_position_embeddings as f64 * factor.max(1.0)) as usize
        }
        _ => max_position_embeddings,
    };
    Ok(DecoderConfig {
        names,
        modules: &PLAIN,
        vocab_size: f.dim("vocab_size")?,
        hidden_size,
        intermediate_size: f.dim("intermediate_size")?,
        num_layers,
        num_heads,
        num_kv_heads,
        head_dim,
        rms_norm_eps: f.f64("rms_norm_eps", defaults.eps)?,
        norm: NormKind::Rms,
        norm_offset: 0.0,
        ropes: vec![rope],
        max_position_embeddings,
        max_length,
        qkv_bias: false,
        o_bias: false,
        mlp_bias: false,
        qk_norm: QkNorm::None,
        embedding_scale: 1.0,
        attention_scale: 1.0 / (head_dim as f64).sqrt(),
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_cap: None,
        logit_cap: None,
        tie_word_embeddings: f.bool("tie_word_embeddings", defaults.tied)?,
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, defaults.act_key, act))?,
        attention_dropout: f.f64("attention_dropout", 0.0)?,
        residual_dropout: 0.0,
        embedding_dropout: 0.0,
        layers: vec![LayerKind::PLAIN; num_layers],
        experts: None,
        convolution: None,
        bos_token_id: f.token("bos_token_id", defaults.bos)?,
        eos_token_ids: f.tokens("eos_token_id", defaults.eos)?,
        pad_token_id: f.token("pad_token_id", defaults.pad)?,
        pooling: PoolingMode::parse(f)?,
        head: CheckpointHead::parse(f, true)?,
        labels: HeadLabels::parse(f)?,
        raw: f.map.clone(),
    })
}

/// The width of a head where the file does not give it; `field` is the one that gives their number.
pub(super) fn width_of_heads(f: &Fields<'_>, field: &str, hidden_size: usize, num_heads: usize) -> Result<usize> {
    match hidden_size % num_heads {
        0 => Ok(hidden_size / num_heads),
        _ => {
            let what = format!("{num_heads} heads do not divide hidden_size {hidden_size}, and there is no head_dim");
            Err(f.error(field, what))
        }
    }
}

/// An error for a rotary embedding that does not go with the width of the heads.
pub(super) fn check_rope(f: &Fields<'_>, rope: &RopeConfig, head_dim: usize) -> Result<()> {
    let rotated = (head_dim as f64 * rope.partial_rotary_factor) as usize;
    if rotated == 0 || rotated % 2 == 1 {
        let what = format!("rotates {rotated} of {head_dim} elements of a head: expected an even number");
        return Err(f.error("partial_rotary_factor", what));
    }
    if let RopeScaling::Long { short, long, .. } = &rope.scaling {
        for (name, list) in [("short_factor", short), ("long_factor", long)] {
            if list.len() != rotated / 2 {
                return Err(f.error(name, format!("expected {} factors, found {}", rotated / 2, list.len())));
            }
        }
    }
    Ok(())
}

/// A value at which outputs or scores are capped; null means none.
pub(super) fn cap(f: &Fields<'_>, field: &str, default: Option<f64>) -> Result<Option<f64>> {
    let cap = if f.map.contains_key(field) { f.opt_f64(field)? } else { default };
    match cap {
        Some(c) if !(c.is_finite() && c > 0.0) => {
            Err(f.error(field, format!("must be positive, or null for none, found {c}")))
        }
        cap => Ok(cap),
    }
}

/// A factor that must be positive.
pub(super) fn factor(f: &Fields<'_>, field: &str, default: f64) -> Result<f64> {
    match f.f64(field, default)? {
        x if x.is_finite() && x > 0.0 => Ok(x),
        x => Err(f.error(field, format!("must be positive, found {x}"))),
    }
}
