//! Model families: one file describes one, with its names, its defaults and how its `config.json` is read; the registry
//! lists them. No other part of the workspace knows a family by name.

mod bert;
mod decoder;
mod description;
mod distilbert;
mod encoder;
mod gpt2;
mod llama;
mod load;
mod mistral;
mod qwen2;
mod qwen3;
mod registry;
mod roberta;
mod smollm3;
mod tensor_names;
mod unknown;
mod windows;

pub(crate) use description::GgufFamily;
pub use registry::supported;
pub(crate) use registry::{gguf_of, of_gguf};
pub use tensor_names::TensorNames;
pub(crate) use unknown::is_output;
