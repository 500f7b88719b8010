//! Files of the loram project: safetensors checkpoints, model configurations, PEFT adapters, merged models, the Hugging
//! Face cache, tokenizers and training data. Nothing here trains or runs a model.

pub mod adapter;
pub mod atomic;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod hub;
mod linear;
pub mod merge;
#[doc(hidden)]
pub mod testing;

pub use adapter::{Adapter, AdapterForm, LoraWeights};
pub use checkpoint::{Checkpoint, DType, TensorRef};
pub use config::{DecoderConfig, EncoderConfig, ModelConfig};
pub use error::{Error, Result};
pub use linear::linear_modules;
