//! One training run of a LoRA adapter, from a configuration to a run folder.

pub mod adapt;
pub mod config;
mod error;
mod metrics;
pub mod observer;
pub mod optim;
pub mod schedule;
pub mod system;
pub mod tensorboard;

pub use config::TrainConfig;
pub use error::{Error, Result};
pub use metrics::{Metrics, accuracy, f1, matthews, mse, pearson, spearman};
pub use observer::{Event, Observer};
