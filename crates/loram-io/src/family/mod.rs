//! Model families: one file describes one, with its names, its defaults and how its `config.json` is read; the registry
//! lists them. No other part of the workspace knows a family by name.

mod bert;
mod deberta_v2;
mod decoder;
mod description;
mod distilbert;
mod encoder;
mod exaone4;
mod experts;
mod gemma2;
mod gemma3;
mod glm4;
mod gpt2;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod load;
mod minicpm;
mod ministral3;
mod mistral;
mod mixtral;
mod modernbert;
mod nearest;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod registry;
mod roberta;
mod smollm3;
mod tensor_names;
mod tower;
mod unknown;
mod windows;

pub(crate) use description::GgufFamily;
pub use registry::{FamilyInfo, families, supported};
pub(crate) use registry::{gguf_of, of_gguf};
pub use tensor_names::TensorNames;
pub(crate) use tower::is_in_tower;
pub(crate) use unknown::is_output;
