//! Encoder families: BERT, RoBERTa and XLM-RoBERTa, DistilBERT.

use super::fields::Fields;
use super::{Activation, Head, Labels};
use crate::Result;
use serde_json::{Map, Value};

/// `model_type` of the supported encoders.
pub const ENCODER_FAMILIES: [&str; 4] = ["bert", "roberta", "xlm-roberta", "distilbert"];

/// A bidirectional encoder: post-norm blocks with learned positions.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// `model_type`.
    pub family: String,
    /// Rows of the word embedding.
    pub vocab_size: usize,
    /// Width of the model.
    pub hidden_size: usize,
    /// Width inside the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Attention heads; divides `hidden_size`.
    pub num_heads: usize,
    /// Rows of the position embedding.
    pub max_position_embeddings: usize,
    /// Rows of the token type embedding; 0 for DistilBERT, which has none.
    pub type_vocab_size: usize,
    /// ε of the layer norms.
    pub layer_norm_eps: f64,
    /// Activation of the MLP.
    pub hidden_act: Activation,
    /// Padding token.
    pub pad_token_id: u32,
    /// Row of the position embedding that the first token takes: 0, or `pad_token_id + 1` for RoBERTa.
    pub position_offset: usize,
    /// Dropout after embeddings, attention output and MLP in training.
    pub hidden_dropout: f64,
    /// Dropout on the attention weights in training.
    pub attention_dropout: f64,
    /// Dropout before the classifier in training.
    pub classifier_dropout: f64,
    /// What the checkpoint has on top.
    pub head: Head,
    /// Labels of the head.
    pub labels: Labels,
    /// The file as it was read, to be written back.
    pub raw: Map<String, Value>,
}

impl EncoderConfig {
    /// Width of an attention head.
    pub fn head_dim(&self) -> usize {
        self.hidden_size / self.num_heads
    }

    /// Longest input in tokens.
    pub fn max_length(&self) -> usize {
        self.max_position_embeddings - self.position_offset
    }
}

pub(crate) fn parse(f: &Fields<'_>, family: &str) -> Result<EncoderConfig> {
    let distil = family == "distilbert";
    for flag in ["is_decoder", "add_cross_attention"] {
        if f.bool(flag, false)? {
            return Err(f.error(flag, format!("`{family}` is supported as an encoder only")));
        }
    }
    if let Some(kind) = f.opt_str("position_embedding_type")?.filter(|k| *k != "absolute") {
        return Err(f.error("position_embedding_type", format!("`{kind}` is not supported, only `absolute`")));
    }
    // DistilBERT has its own names; transformers accepts both
    let own = |name: &'static str, distil_name: &'static str| match distil {
        true if f.get(distil_name).is_some() => distil_name,
        true if f.get(name).is_none() => distil_name,
        _ => name,
    };
    let hidden_size = f.dim(own("hidden_size", "dim"))?;
    let heads_field = own("num_attention_heads", "n_heads");
    let num_heads = f.dim(heads_field)?;
    if hidden_size % num_heads != 0 {
        return Err(f.error(heads_field, format!("{num_heads} heads do not divide the width {hidden_size}")));
    }
    let roberta = family.ends_with("roberta");
    let pad_token_id = f.token("pad_token_id", Some(roberta as u32))?.unwrap_or(roberta as u32);
    let position_offset = if roberta { pad_token_id as usize + 1 } else { 0 };
    let max_position_embeddings = f.usize("max_position_embeddings", 512)?;
    if max_position_embeddings <= position_offset {
        let what = format!("{max_position_embeddings} leaves no positions after the offset {position_offset}");
        return Err(f.error("max_position_embeddings", what));
    }
    let act_field = if distil { "activation" } else { "hidden_act" };
    let act = f.opt_str(act_field)?.unwrap_or("gelu");
    let hidden_dropout = f.f64(if distil { "dropout" } else { "hidden_dropout_prob" }, 0.1)?;
    Ok(EncoderConfig {
        family: family.to_string(),
        vocab_size: f.dim("vocab_size")?,
        hidden_size,
        intermediate_size: f.dim(if distil { "hidden_dim" } else { "intermediate_size" })?,
        num_layers: f.dim(own("num_hidden_layers", "n_layers"))?,
        num_heads,
        max_position_embeddings,
        type_vocab_size: if distil { 0 } else { f.usize("type_vocab_size", 2)? },
        // fixed in DistilBERT's code
        layer_norm_eps: if distil { 1e-12 } else { f.f64("layer_norm_eps", 1e-12)? },
        hidden_act: Activation::parse(act).ok_or_else(|| Activation::unsupported(f, act_field, act))?,
        pad_token_id,
        position_offset,
        hidden_dropout,
        attention_dropout: f.f64(if distil { "attention_dropout" } else { "attention_probs_dropout_prob" }, 0.1)?,
        classifier_dropout: match distil {
            true => f.f64("seq_classif_dropout", 0.2)?,
            false => f.opt_f64("classifier_dropout")?.unwrap_or(hidden_dropout),
        },
        head: Head::parse(f, false)?,
        labels: Labels::parse(f)?,
        raw: f.map.clone(),
    })
}
