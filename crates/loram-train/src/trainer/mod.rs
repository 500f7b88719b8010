//! One run from a configuration to a run folder.
//!
//! [`Trainer`] prepares a run (`setup`), describes it ([`Preview`]) or trains (`run`, of which `optimize` is one step and `saving` its
//! checkpoints), and saves the result (`finish`).

mod advice;
mod alike;
mod data_warnings;
mod entry;
mod finish;
mod optimize;
mod passes;
mod preview;
mod prompts;
mod reference;
mod run;
mod saving;
mod search;
mod setup;
mod step;
mod stop;

pub use entry::{RatePlan, Trainer};
pub use preview::{DataSummary, MixedSource, Preview, PreviewSpan};
pub use stop::StopFlag;
