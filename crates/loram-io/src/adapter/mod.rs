//! LoRA adapters in PEFT's layout: `adapter_config.json`, `adapter_model.safetensors`, a model card, and beside them
//! `loram.json`, the recipe of an adapter that was made here.

mod card;
mod config_file;
mod convert;
mod diffusers;
mod folder;
mod in_memory;
mod merge;
mod recipe;
mod tensors;

pub use config_file::{ADAPTER_CONFIG, PEFT_VERSION};
pub use convert::{BaseWeights, TruncatedLayer, Truncation};
pub use diffusers::{DIFFUSERS_WEIGHTS, write_diffusers};
pub use folder::INIT_FACTORS;
pub(crate) use folder::{commit as commit_folder, create as create_folder};
pub use in_memory::Adapter;
pub(crate) use merge::merge_source;
pub use merge::{AdapterMerge, MergeOptions, merge_adapter};
pub use recipe::{AdapterForm, Fingerprint, RECIPE_FILE, Recipe};
pub(crate) use tensors::FactorFile;
pub use tensors::{ADAPTER_WEIGHTS, SavedTensor};
