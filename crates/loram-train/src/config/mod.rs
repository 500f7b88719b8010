//! The configuration of a run: one flat YAML document with the key names of transformers, PEFT and TRL, over which
//! `key=value` settings and flags are laid.
//!
//! The keys are rows of one table (`table.rs`), and the options that schemes describe (`scheme_keys.rs`). A row has everything that the program must know about its key: names, type,
//! default, check, help, and [`Mark`]s, from which flags of commands, checks and comparisons follow.

mod check;
mod derived;
mod foreign;
mod key;
mod layer;
mod lookup;
mod resolve;
mod rewrite;
mod scheme_keys;
mod table;
mod types;
mod yaml_file;

pub use derived::FactorSetting;
pub use foreign::{Foreign, Here, foreign_keys};
pub use key::{Key, Mark};
pub use layer::{Layer, Origin};
pub use lookup::{key, key_hint, keys, marked};
pub use resolve::yaml;
pub use rewrite::Rewritten;
pub(crate) use scheme_keys::canonical;
pub use table::TrainConfig;
pub use types::{
    AdapterFormat, BaseMode, ComputeDtype, DeviceKind, DistDtype, FinetuningType, FlagForm, FourBitKind, KeyType,
    LearningRate, MemoryCheck, OptimKind, ReportTo, Resume, SamplePrompts, SchedulerType, SchemeName, Strategy,
};
