//! GPT-2: layer norms, learnt positions, an MLP without gate, and weights that are stored transposed (`Conv1D`). Its relatives do not
//! run here, but adapters are initialised for them.

use super::decoder::{MODULES, width_of_heads};
use super::description::Family;
use crate::Result;
use crate::config::{
    Activation, CheckpointHead, DecoderConfig, DecoderModules, FamilyNames, Fields, HeadLabels, LayerKind, MlpModules,
    ModelConfig, NormKind, PoolingMode, Projections, QkNorm,
};

/// The `Conv1D` layers of a block.
pub(super) const CONV1D: &[&str] = &["c_attn", "c_proj", "c_fc", "q_attn"];

const NAMES: FamilyNames = FamilyNames {
    model_type: "gpt2",
    class_stem: "GPT2",
    causal_class: "LMHeadModel",
    backbone: "transformer.",
    embedding: "wte",
    parts: &["h.", "wte.", "wpe.", "ln_f."],
    lm_head: Some("lm_head"),
    old_names: None,
    tags_tokens: false,
    conv1d: CONV1D,
    tables: &[".attn.bias", ".attn.masked_bias"],
};

pub(super) static FAMILY: Family = Family {
    names: NAMES,
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "GPT-2, DistilGPT2",
    ..Family::NEW
};

pub(super) static OPENAI_GPT: Family = Family {
    names: FamilyNames {
        model_type: "openai-gpt",
        class_stem: "OpenAIGPT",
        embedding: "tokens_embed",
        parts: &["h.", "tokens_embed.", "positions_embed."],
        ..NAMES
    },
    ..Family::NEW
};

pub(super) static IMAGEGPT: Family =
    Family { names: FamilyNames { model_type: "imagegpt", class_stem: "ImageGPT", ..NAMES }, ..Family::NEW };

static OF_GPT2: DecoderModules = DecoderModules {
    blocks: "h",
    input_norm: Some("ln_1"),
    qkv: Projections::Fused("attn.c_attn"),
    o: "attn.c_proj",
    mlp_norm: Some("ln_2"),
    mlp: MlpModules::Plain("mlp.c_fc"),
    down: "mlp.c_proj",
    positions: Some("wpe"),
    final_norm: "ln_f",
    ..MODULES
};

/// The name that a field has in this file: GPT-2's, or the one that other families have, which transformers takes too.
fn name(f: &Fields<'_>, [own, general]: [&'static str; 2]) -> &'static str {
    if f.get(own).is_none() && f.get(general).is_some() { general } else { own }
}

/// A dimension of the model, by default that of the smallest GPT-2.
fn dim(f: &Fields<'_>, names: [&'static str; 2], default: usize) -> Result<usize> {
    let name = name(f, names);
    if f.get(name).is_some() { f.dim(name) } else { Ok(default) }
}

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    if f.bool("scale_attn_by_inverse_layer_idx", false)? {
        return Err(f.error("scale_attn_by_inverse_layer_idx", "is not supported: expected false"));
    }
    if f.bool("add_cross_attention", false)? {
        return Err(f.error("add_cross_attention", "attention to an encoder is not supported: expected false"));
    }
    let hidden_size = dim(f, ["n_embd", "hidden_size"], 768)?;
    let heads = name(f, ["n_head", "num_attention_heads"]);
    let num_heads = dim(f, [heads, heads], 12)?;
    let head_dim = width_of_heads(f, heads, hidden_size, num_heads)?;
    let blocks = name(f, ["n_layer", "num_hidden_layers"]);
    let num_layers = if f.get(blocks).is_some() { f.layers(blocks)? } else { 12 };
    let positions = dim(f, ["n_positions", "max_position_embeddings"], 1024)?;
    let act = f.opt_str("activation_function")?.unwrap_or("gelu_new");
    let scaled = f.bool("scale_attn_weights", true)?;
    Ok(DecoderConfig {
        names: &FAMILY.names,
        modules: &OF_GPT2,
        vocab_size: dim(f, ["vocab_size"; 2], 50_257)?,
        hidden_size,
        intermediate_size: dim(f, ["n_inner"; 2], 4 * hidden_size)?,
        num_layers,
        num_heads,
        num_kv_heads: num_heads,
        head_dim,
        norm: NormKind::Layer,
        rms_norm_eps: f.f64("layer_norm_epsilon", 1e-5)?,
        norm_offset: 0.0,
        ropes: Vec::new(),
        max_position_embeddings: positions,
        max_length: positions,
        qkv_bias: true,
        o_bias: true,
        mlp_bias: true,
        qk_norm: QkNorm::None,
        embedding_scale: 1.0,
        attention_scale: if scaled { 1.0 / (head_dim as f64).sqrt() } else { 1.0 },
        residual_scale: 1.0,
        logit_scale: 1.0,
        attention_cap: None,
        logit_cap: None,
        tie_word_embeddings: f.bool("tie_word_embeddings", true)?,
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, "activation_function", act))?,
        attention_dropout: f.f64("attn_pdrop", 0.1)?,
        residual_dropout: f.f64("resid_pdrop", 0.1)?,
        embedding_dropout: f.f64("embd_pdrop", 0.1)?,
        layers: vec![LayerKind { rope: None, ..LayerKind::PLAIN }; num_layers],
        experts: None,
        convolution: None,
        bos_token_id: f.token("bos_token_id", Some(50_256))?,
        eos_token_ids: f.tokens("eos_token_id", &[50_256])?,
        pad_token_id: f.token("pad_token_id", None)?,
        pooling: PoolingMode::parse(f)?,
        head: CheckpointHead::parse(f, true)?,
        labels: HeadLabels::parse(f)?,
        raw: f.map.clone(),
    })
}
