//! GGUF files, in which llama.cpp, Ollama and LM Studio keep models: one file with weights, settings, tokenizer and chat template.
//!
//! A file takes the place of a model folder: its metadata become the fields of `config.json` and `tokenizer.json`
//! (`config.rs`, `tokenizer.rs`), its tensors get the names of module paths (`names.rs`), and everything else reads those.

mod bpe;
mod config;
mod file;
mod folder;
mod header;
mod lora;
mod merged;
mod names;
mod sentencepiece;
mod tokenizer;
mod types;
mod vocabulary;
mod writer;

pub(crate) use config::config;
pub(crate) use file::GgufFile;
pub use file::is_gguf;
pub(crate) use folder::folder_files;
pub use header::{GgufHeader, GgufProblem, List, Value, parse_gguf};
pub use lora::{read_lora, write_lora};
pub use merged::{MergedGguf, write_merged_gguf};
pub(crate) use names::names;
pub(crate) use tokenizer::{TokenizerFiles, tokenizer_files};
