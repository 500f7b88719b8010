//! Errors of this crate.

use crate::kernels::OutOfRange;

/// An error of building or running a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the model.
    #[error(transparent)]
    Io(#[from] loram_io::Error),
    /// A tensor of the checkpoint has another shape than the configuration says.
    #[error("tensor `{name}`: found shape {found:?}, expected {expected:?} from config.json")]
    Shape {
        /// Tensor name in the checkpoint.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// A module path that the model does not have.
    #[error("no linear layer `{path}` in this model{hint}")]
    NoModule {
        /// The path asked for.
        path: String,
        /// Similar modules.
        hint: String,
    },
    /// Factors whose shape does not fit the layer.
    #[error("layer `{path}`: {what}")]
    Layer {
        /// Module path.
        path: String,
        /// Found and expected.
        what: String,
    },
    /// The task and the model do not fit together.
    #[error("{0}")]
    Task(String),
    /// Lists of a batch whose lengths disagree.
    #[error("batch: {0}")]
    Batch(String),
    /// No GPU can be used.
    #[error("device cuda: {0}")]
    NoCuda(String),
    /// Something failed on the GPU.
    #[error("the GPU: {0}")]
    Cuda(String),
    /// A token id or label outside its table.
    #[error("{0}: the tokenizer and the model do not fit together, or a label is unknown")]
    OutOfRange(#[from] OutOfRange),
    /// A sequence longer than the model has positions.
    #[error("a sequence of {length} tokens: the model has {max} positions; set max_length to at most {max}")]
    TooLong {
        /// Tokens in the sequence.
        length: usize,
        /// Positions there are.
        max: usize,
    },
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 2 for wrong input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Io(e) => e.exit_code(),
            Error::Batch(_) | Error::Cuda(_) => 1,
            _ => 2,
        }
    }
}
