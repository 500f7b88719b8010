//! The types of the keys: how each reads the loosely typed values of YAML, `--set` and flags, and writes them back.

mod choice;
mod collection;
mod rate;
mod registered;
mod scalar;
mod special;

pub use choice::{
    AdapterFormat, BaseMode, ComputeDtype, DeviceKind, DistDtype, FinetuningType, FourBitKind, MemoryCheck, OptimKind,
    SchedulerType, Strategy,
};
pub use key_type::{FlagForm, KeyType};
pub use rate::LearningRate;
pub use special::{ReportTo, Resume, SamplePrompts, SchemeName};

mod key_type;
