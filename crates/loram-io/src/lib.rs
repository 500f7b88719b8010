//! Files of the loram project: safetensors checkpoints, model configurations, PEFT adapters, merged models, the Hugging
//! Face cache, tokenizers and training data. Nothing here trains or runs a model.

pub mod adapter;
pub mod atomic;
mod caught;
pub mod chat;
pub mod checkpoint;
pub mod checksum;
pub mod config;
pub mod data;
pub mod disk;
pub mod error;
pub mod family;
#[doc(hidden)]
pub mod fault;
pub mod gain_curves;
pub mod gguf;
mod holder;
pub mod http;
pub mod hub;
pub mod init;
pub mod input;
mod inside;
pub mod inspect;
mod layer_weight;
mod lfs;
pub mod limits;
mod linear;
pub mod lock;
mod long_text;
pub mod manifest;
pub mod memory_budget;
pub mod merge;
mod norms;
pub mod plan;
mod quantise;
pub mod rows;
#[doc(hidden)]
pub mod testing;
pub mod tokenizer;
pub mod verify;
mod visible;

pub use adapter::{Adapter, AdapterForm};
pub use checkpoint::{Checkpoint, DType, FileBytes, FourBitName, LoadIn4Bit, TensorRef};
pub use config::{DecoderConfig, EncoderConfig, ModelConfig};
pub use error::{Error, Result};
pub use linear::{check_requests, linear_modules, target_modules};
pub use norms::{WeightNorms, frobenius_norms, weight_norms};
pub use tokenizer::TextTokenizer;
pub use visible::visible;
