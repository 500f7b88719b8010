//! Settings of a decoder, as its family reads them from `config.json`.

use super::activation::Activation;
use super::head::{CheckpointHead, HeadKind, HeadLabels, PoolingMode};
use super::modules::{DecoderModules, FamilyNames, HeadLayer, HeadLayout, Pooling};
use super::rope::RopeConfig;
use serde_json::{Map, Value};

/// A decoder-only language model: blocks of rotary attention and a gated MLP. The norms of a block are those that
/// [`DecoderModules`] names.
#[derive(Debug, Clone)]
pub struct DecoderConfig {
    /// Names of the family.
    pub names: &'static FamilyNames,
    /// Names of its modules.
    pub modules: &'static DecoderModules,
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
    /// The norms of blocks and the last one.
    pub norm: NormKind,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// The weights of the RMS norms are stored minus this: 1 in Gemma, else 0.
    pub norm_offset: f64,
    /// Rotary embeddings, that of the full attention first; [`LayerKind::rope`] chooses one. None where positions are learnt.
    pub ropes: Vec<RopeConfig>,
    /// `max_position_embeddings`.
    pub max_position_embeddings: usize,
    /// Longest sequence the model is made for, in tokens.
    pub max_length: usize,
    /// Bias of q_proj, k_proj, v_proj.
    pub qkv_bias: bool,
    /// Bias of o_proj.
    pub o_bias: bool,
    /// Bias of gate_proj, up_proj, down_proj.
    pub mlp_bias: bool,
    /// RMS norms of queries and keys.
    pub qk_norm: QkNorm,
    /// Factor on the embeddings.
    pub embedding_scale: f64,
    /// Factor on the attention scores.
    pub attention_scale: f64,
    /// Factor on what attention and MLP add to the stream.
    pub residual_scale: f64,
    /// Factor on the outputs of the next-token head.
    pub logit_scale: f64,
    /// Attention scores x become c·tanh(x/c) (Gemma 2).
    pub attention_cap: Option<f64>,
    /// Outputs x of the next-token head become c·tanh(x/c).
    pub logit_cap: Option<f64>,
    /// lm_head shares the embedding's weight.
    pub tie_word_embeddings: bool,
    /// Activation of the gate.
    pub hidden_act: Activation,
    /// Dropout on the attention weights in training.
    pub attention_dropout: f64,
    /// Dropout on what attention and MLP add to the stream in training.
    pub residual_dropout: f64,
    /// Dropout on the embeddings in training.
    pub embedding_dropout: f64,
    /// Settings that differ between blocks; one entry per block.
    pub layers: Vec<LayerKind>,
    /// The mixtures of experts of the blocks that have one.
    pub experts: Option<ExpertConfig>,
    /// The convolutions of the blocks that have one.
    pub convolution: Option<ConvolutionConfig>,
    /// First token, if the family has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be several, may be none.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// States that a head for sequences reads, through one linear layer; `None`: as the family's class has it, the last
    /// token's.
    pub pooling: Option<PoolingMode>,
    /// The head of the checkpoint.
    pub head: CheckpointHead,
    /// HeadLabels, when the head classifies.
    pub labels: HeadLabels,
    /// The file as it was read, to be written back.
    pub raw: Map<String, Value>,
}

impl DecoderConfig {
    /// The names of the layers of experts. PEFT takes them for those in a dense MLP of the same model, too: `all-linear` omits both.
    pub fn expert_layers(&self) -> &'static [&'static str] {
        let names = self.modules.experts.as_ref().filter(|_| self.experts.is_some());
        names.and_then(|names| names.layers.as_ref()).map_or(&[], |layers| layers)
    }

    /// The head of this kind; `None` for a label of each token (or a pooling of such labels) where transformers has no class for it.
    pub fn head_layout(&self, kind: HeadKind) -> Option<HeadLayout> {
        let last = Pooling::Last { padding: self.pad_token_id };
        // classes without a next-token head have no other than for sequences
        let (lm_head, own) = (self.names.lm_head, self.labels.len());
        let (path, n, pooling) = match (kind, self.pooling, lm_head) {
            (HeadKind::LanguageModel, _, Some(lm_head)) => (lm_head, self.vocab_size, Pooling::All),
            (HeadKind::LanguageModel, _, None) => (self.modules.classifier, own, last),
            (HeadKind::Pooled { outputs }, None, _) => (self.modules.classifier, outputs, last),
            (HeadKind::Pooled { outputs }, Some(mode), _) => {
                (self.modules.classifier, outputs, Pooling::of(mode, self.pad_token_id))
            }
            (HeadKind::Tokens { outputs }, ..) => (self.modules.classifier, outputs, Pooling::Tokens),
        };
        let tags = kind != HeadKind::LanguageModel && (pooling == Pooling::Tokens || self.pooling.is_some());
        if tags && !self.names.tags_tokens {
            return None;
        }
        let out = HeadLayer { path, module: path, n, m: self.hidden_size, bias: tags, output: true };
        let (scale, cap) = match pooling {
            Pooling::All => (self.logit_scale, self.logit_cap),
            _ => (1.0, None),
        };
        let number = |field: &str| self.raw.get(field).and_then(Value::as_f64);
        let dropout = match tags {
            true => number("classifier_dropout").or(number("hidden_dropout")).unwrap_or(0.1),
            false => 0.0,
        };
        let init_std = super::head::init_std(&self.raw);
        Some(HeadLayout { pooling, input_dropout: 0.0, first: None, norm: None, dropout, out, scale, cap, init_std })
    }
}

/// Settings of one block of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// A token sees this many tokens including itself; `None`: all before it.
    pub sliding_window: Option<usize>,
    /// Number of its rotary embedding among [`DecoderConfig::ropes`]; `None` for blocks without position information
    /// (SmolLM3's NoPE layers).
    pub rope: Option<usize>,
    /// How tokens see others.
    pub mixer: Mixer,
    /// A mixture of experts in place of the MLP.
    pub experts: bool,
}

impl LayerKind {
    /// Attention to all tokens before, with the first rotary embedding, and an MLP.
    pub const PLAIN: LayerKind =
        LayerKind { sliding_window: None, rope: Some(0), mixer: Mixer::Attention, experts: false };
}

/// The part of a block in which tokens see others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// Attention.
    Attention,
    /// A short convolution between gates (LFM2).
    Convolution,
}

/// Mixtures of experts: a router chooses some MLPs for each token, whose outputs are added with weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExpertConfig {
    /// Experts of a block.
    pub count: usize,
    /// Experts that a token goes to.
    pub per_token: usize,
    /// Width inside an expert.
    pub intermediate_size: usize,
    /// The weights of the chosen experts add up to 1; otherwise they are their probabilities among all.
    pub normalised: bool,
    /// Router and experts have biases.
    pub bias: bool,
    /// How the first layers of an expert are joined.
    pub gate: Gate,
}

/// How the outputs g and u of the first two layers of a gated MLP are joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gate {
    /// act(g)·u.
    Activation(Activation),
    /// g·σ(α·g)·(u + 1), with g at most `limit` and u within ±`limit` (gpt-oss).
    Clamped {
        /// α.
        alpha: f64,
        /// The bound.
        limit: f64,
    },
}

/// Convolutions over the last tokens, of each channel by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvolutionConfig {
    /// Tokens that it sees, the current one included.
    pub length: usize,
    /// Projections and convolution have biases.
    pub bias: bool,
}

/// The norms of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// RMS norms.
    Rms,
    /// Layer norms with bias.
    Layer,
}

/// RMS norms of queries and keys before the rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// None.
    None,
    /// Of each head, with one weight for all (Qwen3).
    Heads,
    /// Of all heads together (OLMo 2).
    Whole,
}
