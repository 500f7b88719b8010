//! Common to the encoder families: module names, and the fields of `config.json`, which some of them name differently.

use crate::Result;
use crate::config::{
    Activation, CheckpointHead, ClassifierModules, EncoderConfig, EncoderLayer, EncoderModules, FamilyNames, Fields,
    HeadLabels, MlpModules, PoolingMode, Projections, RelativeModules,
};

/// Names that BERT and its relatives have in common; a family sets `model_type`, `class_stem` and `backbone`.
pub(super) const NAMES: FamilyNames = FamilyNames {
    model_type: "",
    class_stem: "",
    causal_class: "ForCausalLM",
    backbone: "",
    embedding: "embeddings.word_embeddings",
    parts: &["embeddings.", "encoder.", "pooler."],
    lm_head: None,
    old_names: None,
    tags_tokens: true,
    conv1d: &[],
    tables: &["rotary_emb.inv_freq"],
};

/// Modules of BERT; a family sets its classifier.
pub(super) const MODULES: EncoderModules = EncoderModules {
    positions: "embeddings.position_embeddings",
    types: "embeddings.token_type_embeddings",
    embedding_norm: "embeddings.LayerNorm",
    blocks: "encoder.layer",
    input_norm: None,
    qkv: Projections::Apart(["attention.self.query", "attention.self.key", "attention.self.value"]),
    o: "attention.output.dense",
    attention_norm: Some("attention.output.LayerNorm"),
    mlp_norm: None,
    mlp: MlpModules::Plain("intermediate.dense"),
    down: "output.dense",
    output_norm: Some("output.LayerNorm"),
    final_norm: None,
    relative: RelativeModules { embedding: "", norm: "", k: "", q: "" },
    classifier: ClassifierModules {
        dense: "",
        dense_module: "",
        norm: None,
        tokens_use_dense: false,
        sets_pooling: false,
        dense_is_output: false,
        out: "classifier",
        tokens_out: "classifier",
        out_module: "classifier",
    },
};

/// The fields of `config.json` whose names differ; of two names the first that is there counts, and errors name the first.
pub(super) struct Keys {
    pub hidden_size: &'static [&'static str],
    pub heads: &'static [&'static str],
    pub layers: &'static [&'static str],
    pub intermediate_size: &'static str,
    pub activation: &'static str,
    pub hidden_dropout: &'static str,
    pub attention_dropout: &'static str,
    /// Both dropouts where the file does not name them.
    pub dropout: f64,
    /// `max_position_embeddings` where the file does not name it.
    pub max_positions: usize,
    /// `pad_token_id` where the file does not name it.
    pub pad: u32,
    /// Positions are counted from the row after the padding token's.
    pub positions_after_pad: bool,
}

/// Those of BERT.
pub(super) const KEYS: Keys = Keys {
    hidden_size: &["hidden_size"],
    heads: &["num_attention_heads"],
    layers: &["num_hidden_layers"],
    intermediate_size: "intermediate_size",
    activation: "hidden_act",
    hidden_dropout: "hidden_dropout_prob",
    attention_dropout: "attention_probs_dropout_prob",
    dropout: 0.1,
    max_positions: 512,
    pad: 0,
    positions_after_pad: false,
};

/// Reads the fields that all encoders have. What is left to the family is as in BERT without token types, with a norm of
/// ε = 1e-12 and a classifier that drops out as the blocks do.
pub(super) fn read(
    f: &Fields<'_>,
    names: &'static FamilyNames,
    modules: &'static EncoderModules,
    keys: &Keys,
) -> Result<EncoderConfig> {
    for flag in ["is_decoder", "add_cross_attention"] {
        if f.bool(flag, false)? {
            return Err(f.error(flag, format!("`{}` is supported as an encoder only", names.model_type)));
        }
    }
    if let Some(kind) = f.opt_str("position_embedding_type")?.filter(|k| *k != "absolute") {
        return Err(f.error("position_embedding_type", format!("`{kind}` is not supported, only `absolute`")));
    }
    let there = |keys: &[&'static str]| keys.iter().find(|k| f.get(k).is_some()).copied().unwrap_or(keys[0]);
    let hidden_size = f.dim(there(keys.hidden_size))?;
    let heads_field = there(keys.heads);
    let num_heads = f.dim(heads_field)?;
    if hidden_size % num_heads != 0 {
        return Err(f.error(heads_field, format!("{num_heads} heads do not divide the width {hidden_size}")));
    }
    let pad_token_id = f.token("pad_token_id", Some(keys.pad))?.unwrap_or(keys.pad);
    let position_offset = if keys.positions_after_pad { pad_token_id as usize + 1 } else { 0 };
    let max_position_embeddings = f.usize("max_position_embeddings", keys.max_positions)?;
    if max_position_embeddings <= position_offset {
        let what = format!("{max_position_embeddings} leaves no positions after the offset {position_offset}");
        return Err(f.error("max_position_embeddings", what));
    }
    let act = f.opt_str(keys.activation)?.unwrap_or("gelu");
    let hidden_dropout = f.f64(keys.hidden_dropout, keys.dropout)?;
    let num_layers = f.layers(there(keys.layers))?;
    Ok(EncoderConfig {
        names,
        modules,
        vocab_size: f.dim("vocab_size")?,
        hidden_size,
        intermediate_size: f.dim(keys.intermediate_size)?,
        num_layers,
        num_heads,
        max_position_embeddings,
        has_positions: true,
        ropes: Vec::new(),
        relative: None,
        layers: vec![EncoderLayer::PLAIN; num_layers],
        attention_scale: 1.0 / ((hidden_size / num_heads) as f64).sqrt(),
        attention_bias: true,
        mlp_bias: true,
        norm_bias: true,
        type_vocab_size: 0,
        layer_norm_eps: 1e-12,
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, keys.activation, act))?,
        pad_token_id,
        position_offset,
        padding_position: keys.positions_after_pad.then_some(pad_token_id),
        embedding_dropout: hidden_dropout,
        attention_out_dropout: hidden_dropout,
        mlp_out_dropout: hidden_dropout,
        attention_dropout: f.f64(keys.attention_dropout, keys.dropout)?,
        classifier_bias: true,
        classifier_act: Activation::Tanh,
        classifier_input_dropout: 0.0,
        classifier_dropout: hidden_dropout,
        token_dropout: hidden_dropout,
        pooling: PoolingMode::parse(f)?,
        head: CheckpointHead::parse(f, false)?,
        labels: HeadLabels::parse(f)?,
        raw: f.map.clone(),
    })
}

/// The fields that BERT and RoBERTa have beside those of all encoders.
pub(super) fn read_bert(
    f: &Fields<'_>,
    names: &'static FamilyNames,
    modules: &'static EncoderModules,
    keys: &Keys,
) -> Result<EncoderConfig> {
    let config = read(f, names, modules, keys)?;
    let classifier_dropout = f.opt_f64("classifier_dropout")?.unwrap_or(config.token_dropout);
    Ok(EncoderConfig {
        type_vocab_size: f.usize("type_vocab_size", 2)?,
        layer_norm_eps: f.f64("layer_norm_eps", 1e-12)?,
        classifier_dropout,
        token_dropout: classifier_dropout,
        ..config
    })
}
