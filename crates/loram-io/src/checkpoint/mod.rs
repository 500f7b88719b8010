//! Weights of a model folder, memory-mapped: `model.safetensors`, shards with `model.safetensors.index.json`, or a GGUF file.

mod digest;
mod dtype;
mod folder;
mod header;
mod index;
mod load_in_4bit;
mod mapped;
mod no_safetensors;
mod packings;
mod shard;
mod tensor;
pub(crate) mod wrappers;
mod writer;

pub use digest::{Content, settings_sha256};
pub use dtype::DType;
pub use folder::Checkpoint;
pub use header::{Header, HeaderProblem, MAX_HEADER, TensorInfo, parse_header};
pub use index::{INDEX_FILE, IndexProblem, SINGLE_FILE, parse_index};
pub use load_in_4bit::{FourBitName, LoadIn4Bit};
pub(crate) use mapped::Mapped;
pub use mapped::report_lost_files;
pub use packings::{Packed, Packing};
pub use shard::Shard;
pub(crate) use tensor::OpenFile;
pub use tensor::{FileBytes, TensorRef};
pub(crate) use writer::f32_to_bytes;
pub use writer::{SafetensorsWriter, TensorSpec, pt_metadata, write_safetensors};
