//! Settings of an encoder, as its family reads them from `config.json`.

use super::activation::Activation;
use super::head::{CheckpointHead, HeadLabels};
use super::modules::{EncoderModules, FamilyNames, HeadLayer, HeadLayout, Pooling};
use serde_json::{Map, Value};

/// A bidirectional encoder: post-norm blocks with learned positions.
#[derive(Debug, Clone)]
pub struct EncoderConfig {
    /// Names of the family.
    pub names: &'static FamilyNames,
    /// Names of its modules.
    pub modules: &'static EncoderModules,
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
    /// The token that positions do not count, and that takes the row of its own number: RoBERTa's padding token.
    pub padding_position: Option<u32>,
    /// Dropout after embeddings, attention output and MLP in training.
    pub hidden_dropout: f64,
    /// True when the attention's output goes through the hidden dropout (not in DistilBERT).
    pub drops_attention: bool,
    /// Dropout on the attention weights in training.
    pub attention_dropout: f64,
    /// Dropout before the classifier in training.
    pub classifier_dropout: f64,
    /// The head of the checkpoint.
    pub head: CheckpointHead,
    /// HeadLabels of the head.
    pub labels: HeadLabels,
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

    /// The head for classification or regression with `outputs` outputs.
    pub fn head_layout(&self, outputs: usize) -> HeadLayout {
        let (head, h) = (&self.modules.classifier, self.hidden_size);
        let dense = HeadLayer {
            path: head.dense,
            module: head.dense_module,
            n: h,
            m: h,
            bias: true,
            output: head.dense_is_output,
        };
        HeadLayout {
            pooling: Pooling::First,
            input_dropout: if head.dropout_before { self.classifier_dropout } else { 0.0 },
            first: Some((dense, head.activation)),
            dropout: self.classifier_dropout,
            out: HeadLayer { path: head.out, module: head.out_module, n: outputs, m: h, bias: true, output: true },
            scale: 1.0,
            cap: None,
            init_std: super::head::init_std(&self.raw),
        }
    }
}
