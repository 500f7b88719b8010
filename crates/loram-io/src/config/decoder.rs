//! Settings of a decoder, as its family reads them from `config.json`.

use super::activation::Activation;
use super::head::{CheckpointHead, HeadLabels};
use super::modules::{DecoderModules, FamilyNames, HeadLayer, HeadLayout, Pooling};
use super::rope::{RopeConfig, RopeScaling};
use serde_json::{Map, Value};

/// A decoder-only language model: pre-norm blocks with rotary attention and a gated MLP.
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
    /// Settings that differ between blocks; one entry per block.
    pub layers: Vec<LayerKind>,
    /// First token, if the family has one.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text; may be several, may be none.
    pub eos_token_ids: Vec<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// The head of the checkpoint.
    pub head: CheckpointHead,
    /// HeadLabels, when the head classifies.
    pub labels: HeadLabels,
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

    /// The head for next-token prediction (`outputs` is `None`), or for classification or regression with so many outputs.
    pub fn head_layout(&self, outputs: Option<usize>) -> HeadLayout {
        let last = Pooling::Last { padding: self.pad_token_id };
        let (path, n, pooling) = match (outputs, self.names.lm_head) {
            (None, Some(lm_head)) => (lm_head, self.vocab_size, Pooling::All),
            (outputs, _) => (self.modules.classifier, outputs.unwrap_or(self.labels.len()), last),
        };
        let out = HeadLayer { path, module: path, n, m: self.hidden_size, bias: false, output: true };
        let init_std = super::head::init_std(&self.raw);
        HeadLayout { pooling, input_dropout: 0.0, first: None, dropout: 0.0, out, init_std }
    }
}

/// Settings of one block of a decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerKind {
    /// A token sees this many tokens including itself; `None`: all before it.
    pub sliding_window: Option<usize>,
    /// False for blocks without position information (SmolLM3's NoPE layers).
    pub rope: bool,
}
