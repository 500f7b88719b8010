//! Settings of an encoder, as its family reads them from `config.json`.

use super::activation::Activation;
use super::head::{CheckpointHead, HeadKind, HeadLabels, PoolingMode};
use super::modules::{EncoderModules, FamilyNames, HeadLayer, HeadLayout, HeadNorm, Pooling};
use super::rope::RopeConfig;
use serde_json::{Map, Value};

/// A bidirectional encoder. The norms of a block are those that [`EncoderModules`] names.
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
    /// Rows of the position embedding, and the longest input.
    pub max_position_embeddings: usize,
    /// It has an embedding of absolute positions.
    pub has_positions: bool,
    /// Rotary embeddings; [`EncoderLayer::rope`] chooses one.
    pub ropes: Vec<RopeConfig>,
    /// Relative positions in the attention (DeBERTa).
    pub relative: Option<RelativePositions>,
    /// Settings that differ between blocks; one entry per block.
    pub layers: Vec<EncoderLayer>,
    /// Factor on the attention scores.
    pub attention_scale: f64,
    /// Biases of the attention's layers.
    pub attention_bias: bool,
    /// Biases of the MLP's layers.
    pub mlp_bias: bool,
    /// Biases of the norms.
    pub norm_bias: bool,
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
    /// Dropout on the embeddings in training.
    pub embedding_dropout: f64,
    /// Dropout on the attention's output in training.
    pub attention_out_dropout: f64,
    /// Dropout on the MLP's output in training.
    pub mlp_out_dropout: f64,
    /// Dropout on the attention weights in training.
    pub attention_dropout: f64,
    /// Bias of the first layer of the head.
    pub classifier_bias: bool,
    /// Activation after the first layer of the head for sequences.
    pub classifier_act: Activation,
    /// Dropout on the input of the first layer of the head for sequences in training.
    pub classifier_input_dropout: f64,
    /// Dropout before the output layer of the head for sequences in training.
    pub classifier_dropout: f64,
    /// Dropout before the output layer of the head for tokens in training.
    pub token_dropout: f64,
    /// States that a head for sequences reads, through one linear layer; `None`: as the family's class has it.
    pub pooling: Option<PoolingMode>,
    /// The head of the checkpoint.
    pub head: CheckpointHead,
    /// HeadLabels of the head.
    pub labels: HeadLabels,
    /// The file as it was read, to be written back.
    pub raw: Map<String, Value>,
}

/// Settings of one block of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderLayer {
    /// A token sees so many tokens before and after it; `None`: all.
    pub window: Option<usize>,
    /// Number of its rotary embedding among [`EncoderConfig::ropes`].
    pub rope: Option<usize>,
    /// It has the norm before the attention that the modules name (not ModernBERT's first).
    pub has_input_norm: bool,
}

impl EncoderLayer {
    /// A block of full attention without rotary embedding.
    pub const PLAIN: EncoderLayer = EncoderLayer { window: None, rope: None, has_input_norm: true };
}

/// Relative positions of disentangled attention (DeBERTa, 2006.03654): a score has terms of a query with the position of the key, and
/// of a key with the position of the query, both from one embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativePositions {
    /// Rows of the embedding for each direction; it has twice as many.
    pub span: usize,
    /// Positions beyond the half of so many are put together on a logarithmic scale; `None`: each has a row.
    pub buckets: Option<usize>,
    /// The distance at which the scale ends.
    pub max_distance: usize,
    /// Content to position: the query with the position of the key.
    pub c2p: bool,
    /// Position to content: the key with the position of the query.
    pub p2c: bool,
    /// Positions go through the projections of the content.
    pub shares_projections: bool,
    /// The embedding has a norm.
    pub norm: bool,
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

    /// The head of this kind; `None` for a language model.
    pub fn head_layout(&self, kind: HeadKind) -> Option<HeadLayout> {
        let head = &self.modules.classifier;
        Some(match (kind, self.pooling) {
            (HeadKind::LanguageModel, _) => return None,
            (HeadKind::Tokens { outputs }, _) if head.tokens_use_dense => self.deep_head(outputs, Pooling::Tokens),
            (HeadKind::Tokens { outputs }, _) => self.linear_head(outputs, Pooling::Tokens),
            (HeadKind::Pooled { outputs }, None) => self.deep_head(outputs, Pooling::First),
            (HeadKind::Pooled { outputs }, Some(mode)) => match head.sets_pooling {
                true => self.deep_head(outputs, Pooling::of(mode, None)),
                false => self.linear_head(outputs, Pooling::of(mode, None)),
            },
        })
    }

    /// The head of the family's class for sequence classification, on the states that `pooling` takes.
    fn deep_head(&self, outputs: usize, pooling: Pooling) -> HeadLayout {
        let head = &self.modules.classifier;
        let dense = HeadLayer {
            path: head.dense,
            module: head.dense_module,
            n: self.hidden_size,
            m: self.hidden_size,
            bias: self.classifier_bias,
            output: head.dense_is_output,
        };
        HeadLayout {
            input_dropout: self.classifier_input_dropout,
            first: Some((dense, self.classifier_act)),
            norm: head.norm.map(|path| HeadNorm { path, eps: self.layer_norm_eps, bias: self.norm_bias }),
            dropout: self.classifier_dropout,
            out: self.output_layer(head.out, outputs),
            ..self.linear_head(outputs, pooling)
        }
    }

    /// The head of the family's class for token classification, on the states that `pooling` takes.
    fn linear_head(&self, outputs: usize, pooling: Pooling) -> HeadLayout {
        HeadLayout {
            pooling,
            input_dropout: 0.0,
            first: None,
            norm: None,
            dropout: self.token_dropout,
            out: self.output_layer(self.modules.classifier.tokens_out, outputs),
            scale: 1.0,
            cap: None,
            init_std: super::head::init_std(&self.raw),
        }
    }

    fn output_layer(&self, path: &'static str, outputs: usize) -> HeadLayer {
        let module = self.modules.classifier.out_module;
        HeadLayer { path, module, n: outputs, m: self.hidden_size, bias: true, output: true }
    }
}
