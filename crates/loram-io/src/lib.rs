//! Files of the loram project: safetensors checkpoints, model configurations, PEFT adapters, merged models, the Hugging
//! Face cache, tokenizers and training data. Nothing here trains or runs a model.

pub mod atomic;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod hub;
pub mod merge;
#[doc(hidden)]
pub mod testing;

pub use checkpoint::{Checkpoint, DType, TensorRef};
pub use config::{DecoderConfig, EncoderConfig, ModelConfig};
pub use error::{Error, Result};
