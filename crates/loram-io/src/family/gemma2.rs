//! Gemma 2: norms before and after attention and MLP, with weights stored minus one, and soft-capped scores and logits.

use super::decoder::{self, DEFAULTS, Defaults, MODULES, NAMES, cap, factor};
use super::description::Family;
use super::windows;
use crate::Result;
use crate::config::{DecoderConfig, DecoderModules, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "gemma2", class_stem: "Gemma2", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "Gemma 2",
    ..Family::NEW
};

pub(super) static OF_GEMMA: DecoderModules = DecoderModules {
    attention_out_norm: Some("post_attention_layernorm"),
    mlp_norm: Some("pre_feedforward_layernorm"),
    mlp_out_norm: Some("post_feedforward_layernorm"),
    ..MODULES
};

/// Parts of a block in GGUF files.
pub(super) const GGUF_OF_GEMMA: &[(&str, &str)] = &[
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("post_attention_norm", "post_attention_layernorm"),
    ("ffn_norm", "pre_feedforward_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
    ("post_ffw_norm", "post_feedforward_layernorm"),
];

pub(super) const DEFAULTS_GEMMA: Defaults = Defaults {
    max_positions: 8192,
    kv_heads: Some(4),
    head_dim: Some(256),
    act_key: "hidden_activation",
    act: "gelu_pytorch_tanh",
    tied: true,
    bos: Some(2),
    eos: &[1],
    pad: Some(0),
    ..DEFAULTS
};

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = common(f, &FAMILY.names, &DEFAULTS_GEMMA)?;
    let n = config.num_layers;
    let slides = windows::layer_types(f, n)?.unwrap_or_else(|| (0..n).map(|i| i % 2 == 0).collect());
    Ok(DecoderConfig {
        layers: windows::blocks(f, &slides, &vec![true; n], windows::window(f, Some(4096))?)?,
        attention_cap: cap(f, "attn_logit_softcapping", Some(50.0))?,
        logit_cap: cap(f, "final_logit_softcapping", Some(30.0))?,
        ..config
    })
}

/// The settings that Gemma 2 and 3 share.
pub(super) fn common(f: &Fields<'_>, names: &'static FamilyNames, defaults: &Defaults) -> Result<DecoderConfig> {
    if f.bool("use_bidirectional_attention", false)? {
        let what = "models that see the tokens after a token are not supported";
        return Err(f.error("use_bidirectional_attention", what));
    }
    let config = decoder::read(f, names, defaults)?;
    let bias = f.bool("attention_bias", false)?;
    Ok(DecoderConfig {
        modules: &OF_GEMMA,
        norm_offset: 1.0,
        qkv_bias: bias,
        o_bias: bias,
        embedding_scale: (config.hidden_size as f64).sqrt(),
        attention_scale: factor(f, "query_pre_attn_scalar", 256.0)?.powf(-0.5),
        ..config
    })
}
