//! The names that a family gives to its classes and modules, and the layout of a head.

use super::activation::Activation;
use super::head::PoolingMode;

/// Names of a family: of its classes in `architectures`, and of its modules as transformers and PEFT show them.
#[derive(Debug, PartialEq, Eq)]
pub struct FamilyNames {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The common part of its class names, e.g. `Llama` in `LlamaForCausalLM`.
    pub class_stem: &'static str,
    /// The end of the name of its class with a next-token head.
    pub causal_class: &'static str,
    /// Prefix of the backbone in a model with a head, with its dot: `model.`, `bert.`; empty where there is none.
    pub backbone: &'static str,
    /// The token embedding within the backbone.
    pub embedding: &'static str,
    /// How the names of the backbone's tensors begin within it; all others belong to heads.
    pub parts: &'static [&'static str],
    /// The next-token head. Where the checkpoint does not have it, its weight is that of the token embedding.
    pub lm_head: Option<&'static str>,
    /// The prefix of the backbone and the next-token head in files of older versions, where these have others.
    pub old_names: Option<(&'static str, &'static str)>,
    /// transformers has a class of it with a label for each token, `…ForTokenClassification`.
    pub tags_tokens: bool,
    /// Last parts of the layers whose weight is stored as (inputs, outputs): GPT-2's `Conv1D`.
    pub conv1d: &'static [&'static str],
    /// Ends of the names of tables that old files hold and that a model computes by itself.
    pub tables: &'static [&'static str],
}

impl FamilyNames {
    /// Path of the token embedding in a model with a head.
    pub fn embedding_path(&self) -> String {
        format!("{}{}", self.backbone, self.embedding)
    }

    /// The module whose weight `path` shares in a checkpoint that has no weight for `path` itself: the token embedding, for
    /// the next-token head.
    pub fn tied_to(&self, path: &str) -> Option<String> {
        (self.lm_head == Some(path)).then(|| self.embedding_path())
    }
}

/// Module names of a decoder, those of a block within the block, all others within the backbone.
#[derive(Debug, PartialEq, Eq)]
pub struct DecoderModules {
    /// The list of blocks.
    pub blocks: &'static str,
    /// Norm before the attention, where it has one.
    pub input_norm: Option<&'static str>,
    /// Projections of queries, keys and values.
    pub qkv: Projections<3>,
    /// Output projection of the attention.
    pub o: &'static str,
    /// Scores of the sinks of the heads, where they have them.
    pub sinks: Option<&'static str>,
    /// Norm of the queries, where [`qk_norm`](super::DecoderConfig::qk_norm) is set.
    pub q_norm: &'static str,
    /// Norm of the keys.
    pub k_norm: &'static str,
    /// Norm of the attention's output, before it joins the stream, where it has one.
    pub attention_out_norm: Option<&'static str>,
    /// Norm before the MLP, where it has one.
    pub mlp_norm: Option<&'static str>,
    /// First layers of the MLP.
    pub mlp: MlpModules,
    /// Norm of the MLP's output, before it joins the stream, where it has one.
    pub mlp_out_norm: Option<&'static str>,
    /// Output projection of the MLP.
    pub down: &'static str,
    /// The mixture of experts in place of the MLP, in blocks that have one ([`LayerKind::experts`](super::LayerKind::experts)).
    pub experts: Option<ExpertModules>,
    /// The short convolution in place of the attention, in blocks that have one.
    pub convolution: Option<ConvolutionModules>,
    /// Position embedding, where it has one.
    pub positions: Option<&'static str>,
    /// Norm after the last block.
    pub final_norm: &'static str,
    /// The output layer for classification of sequences and of tokens; not within the backbone.
    pub classifier: &'static str,
}

/// Projections of one input.
#[derive(Debug, PartialEq, Eq)]
pub enum Projections<const N: usize> {
    /// A layer for each.
    Apart([&'static str; N]),
    /// One layer with the rows of all, one after another.
    Fused(&'static str),
}

/// First layers of an MLP.
#[derive(Debug, PartialEq, Eq)]
pub enum MlpModules {
    /// Projections that the activation gates with, and that are gated.
    Gated(Projections<2>),
    /// One projection, before the activation.
    Plain(&'static str),
}

/// Names in a mixture of experts.
#[derive(Debug, PartialEq, Eq)]
pub struct ExpertModules {
    /// Router and list of experts: in transformers, and in files of older versions.
    pub places: &'static [(&'static str, &'static str)],
    /// The layers of an expert where a file has a tensor for each: gate, up and down. Otherwise it has `gate_up_proj` and `down_proj` of
    /// all experts as tensors of three dimensions.
    pub layers: Option<[&'static str; 3]>,
    /// In tensors of three dimensions the outputs of gate and up alternate, and weights are stored as (inputs, outputs).
    pub alternating: bool,
}

/// Names in a short convolution between two projections.
#[derive(Debug, PartialEq, Eq)]
pub struct ConvolutionModules {
    /// Projection to two gates and the values, three times the width.
    pub input: &'static str,
    /// The convolution over the tokens, of each channel by itself.
    pub kernel: &'static str,
    /// Output projection.
    pub output: &'static str,
}

/// Module names of an encoder, those of a block within the block, all others within the backbone.
#[derive(Debug, PartialEq, Eq)]
pub struct EncoderModules {
    /// Position embedding, where [`has_positions`](super::EncoderConfig::has_positions) is set.
    pub positions: &'static str,
    /// Token type embedding, where [`type_vocab_size`](super::EncoderConfig::type_vocab_size) is not 0.
    pub types: &'static str,
    /// Norm of the embeddings' sum.
    pub embedding_norm: &'static str,
    /// The list of blocks.
    pub blocks: &'static str,
    /// Norm before the attention, where it has one.
    pub input_norm: Option<&'static str>,
    /// Projections of queries, keys and values.
    pub qkv: Projections<3>,
    /// Output projection of the attention.
    pub o: &'static str,
    /// Norm of the stream after the attention, where it has one.
    pub attention_norm: Option<&'static str>,
    /// Norm before the MLP, where it has one.
    pub mlp_norm: Option<&'static str>,
    /// First layers of the MLP.
    pub mlp: MlpModules,
    /// Second layer of the MLP.
    pub down: &'static str,
    /// Norm of the stream after the MLP, where it has one.
    pub output_norm: Option<&'static str>,
    /// Norm after the last block, where it has one.
    pub final_norm: Option<&'static str>,
    /// Modules of relative positions, where [`relative`](super::EncoderConfig::relative) is set.
    pub relative: RelativeModules,
    /// Heads for classification.
    pub classifier: ClassifierModules,
}

/// Module names of relative positions (DeBERTa): two within the backbone, two within a block.
#[derive(Debug, PartialEq, Eq)]
pub struct RelativeModules {
    /// The embedding of relative positions, which all blocks share.
    pub embedding: &'static str,
    /// Norm of it.
    pub norm: &'static str,
    /// Key projection of positions, where they do not share that of the content.
    pub k: &'static str,
    /// Query projection of positions.
    pub q: &'static str,
}

/// A sequence-classification head of two layers, `out(dropout(activation(dense(x))))` of the first token's state x, and one for a
/// label of each token, `tokens_out(dropout(x))` of its state x.
#[derive(Debug, PartialEq, Eq)]
pub struct ClassifierModules {
    /// Path of the first layer.
    pub dense: &'static str,
    /// The module that PEFT saves for the first layer when it is trained in full.
    pub dense_module: &'static str,
    /// Norm after the first layer and its activation, where it has one.
    pub norm: Option<&'static str>,
    /// The head for tokens has the first layer too.
    pub tokens_use_dense: bool,
    /// The pooling is a setting of the class for sequences (`classifier_pooling`), whose head keeps its first layer.
    pub sets_pooling: bool,
    /// PEFT counts the first layer as output layer too: `all-linear` omits it and training saves it.
    pub dense_is_output: bool,
    /// Path of the output layer.
    pub out: &'static str,
    /// Path of the output layer for tokens.
    pub tokens_out: &'static str,
    /// The module that PEFT saves for both output layers.
    pub out_module: &'static str,
}

/// A linear layer of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLayer {
    /// Module path.
    pub path: &'static str,
    /// The module that PEFT saves (`modules_to_save`) when this layer is trained in full: itself or the one it is in.
    pub module: &'static str,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub m: usize,
    /// True when it has a bias.
    pub bias: bool,
    /// An output layer as PEFT defines it: `all-linear` omits it, and training a head for sequences trains it in full.
    pub output: bool,
}

/// A layer norm of a head.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadNorm {
    /// Module path.
    pub path: &'static str,
    /// Its ε.
    pub eps: f64,
    /// True when it has a bias.
    pub bias: bool,
}

/// Which states of a sequence a head reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Every token's: next-token prediction.
    All,
    /// Every token's, for a label of each.
    Tokens,
    /// The first token's.
    First,
    /// The last token's that is not this one.
    Last {
        /// `pad_token_id`; `None`: every token counts.
        padding: Option<u32>,
    },
    /// The mean of all tokens'.
    Mean,
}

impl Pooling {
    /// The pooling of this name; `padding` is the token that does not count as the last one.
    pub(super) fn of(mode: PoolingMode, padding: Option<u32>) -> Pooling {
        match mode {
            PoolingMode::Cls => Pooling::First,
            PoolingMode::Mean => Pooling::Mean,
            PoolingMode::Last => Pooling::Last { padding },
        }
    }
}

/// The head of a model for one task: `out(dropout(norm(activation(first(dropout(x))))))`, without `first` only `out(dropout(x))`.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadLayout {
    /// The states that it reads.
    pub pooling: Pooling,
    /// Probability of dropout on its input.
    pub input_dropout: f64,
    /// Layer before the output layer, with its activation.
    pub first: Option<(HeadLayer, Activation)>,
    /// Norm after the activation of `first`, where it has one.
    pub norm: Option<HeadNorm>,
    /// Probability of dropout on the input of the output layer.
    pub dropout: f64,
    /// The output layer.
    pub out: HeadLayer,
    /// Factor on the outputs.
    pub scale: f64,
    /// Outputs x become c·tanh(x/c).
    pub cap: Option<f64>,
    /// Standard deviation of weights that the checkpoint does not have (`initializer_range`).
    pub init_std: f64,
}

impl HeadLayout {
    /// Its layers, in the order of the forward pass.
    pub fn layers(&self) -> impl Iterator<Item = &HeadLayer> {
        self.first.iter().map(|f| &f.0).chain([&self.out])
    }
}
