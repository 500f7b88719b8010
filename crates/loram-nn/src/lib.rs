//! Transformers with LoRA adapters: every operation with a forward and a backward pass of its own, no autograd tape.
//!
//! - [`kernels`]: the arithmetic, on slices, usable on their own;
//! - [`Tensor`], [`Weight`], [`Params`]: pooled activations, frozen weights in their stored type, trained tensors;
//! - [`Model`]: decoders and encoders of the Hugging Face families with adapters, losses, gradients and generation.

mod adamw;
mod batch;
mod compute;
mod convolution;
pub mod cuda;
mod dropout;
mod error;
mod frozen;
mod held;
pub mod kernels;
mod linear;
mod log_probabilities;
mod log_probs;
mod loss;
mod mixture;
mod model;
mod observe;
mod ops;
pub mod optim;
mod packed;
mod param;
mod pool;
mod products;
mod tensor;
mod trained_rows;
mod values;
mod weight;

pub use batch::{Batch, EvalOut};
pub use compute::Compute;
pub use error::{Error, Result};
pub use kernels::cross_entropy::IGNORE;
pub use log_probabilities::{GroupLoss, LogProbabilities, OfLogProbabilities};
pub use log_probs::{LogProbs, TokenLogProb, log_prob};
pub use loram_io::config::HeadKind;
pub use loss::{BatchLoss, BinaryCrossEntropy, CrossEntropy, Loss, SquaredError};
pub use model::{Generator, LoadOptions, Lora, Model, feed_all};
pub use observe::Observe;
pub use packed::packed_bytes;
pub use param::{Param, ParamKind, Params};
pub use pool::{MemoryUse, memory_use, reset_memory_peak};
pub use products::Products;
pub use tensor::{Element, Tensor};
pub use weight::{Weight, rounds};
