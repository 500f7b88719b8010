//! One training run of a LoRA adapter, from a configuration to a run folder, and what one does with the result:
//! evaluation and generation.
//!
//! ```no_run
//! use loram_train::{TrainConfig, Trainer};
//!
//! # fn main() -> loram_train::Result<()> {
//! let config = TrainConfig::from_yaml("model: assets/tiny-llama-en\ndata: demo:restaurants\nlearning_rate: 2e-3\nmax_steps: 20")?;
//! let summary = Trainer::new(config)?.run(&mut ())?;
//! println!("loss {} -> {}", summary.train_loss, summary.last_loss);
//! # Ok(())
//! # }
//! ```
//!
//! - [`config`]: every key, its default and its checks; [`Trainer`]: the run; [`observer`]: what it tells;
//! - [`objective`]: what a model is trained for, each with its records, loss and metrics;
//! - [`adapt`]: initialisations on a model, adapter folders; [`optim`], [`schedule`], [`batching`], [`mod@evaluate`]: its parts;
//! - [`Session`]: a model with an adapter, to evaluate, to [`predict`] and to [`mod@generate`] with;
//! - [`dist`]: one run over many processes;
//! - [`mod@estimate`]: the memory it takes, before anything is loaded.

pub mod adapt;
mod base;
pub mod batching;
pub mod checkpoint;
pub mod config;
pub mod dataset;
pub mod device;
pub mod dist;
mod error;
pub mod estimate;
pub mod evaluate;
mod full;
pub mod generate;
pub mod groups;
mod health;
pub mod magnitude;
mod metrics;
mod mlflow;
pub mod objective;
pub mod observer;
pub mod optim;
pub mod predict;
pub mod rate;
mod report;
pub mod run_folder;
pub mod sampling;
pub mod schedule;
mod session;
pub mod shell;
mod summary;
pub mod system;
pub mod tensorboard;
pub mod text_metrics;
mod trainer;
mod trial;

pub use adapt::Adaptation;
pub use base::{Base, BaseWeights, resolve};
pub use config::{Layer, Origin, TrainConfig};
pub use dataset::{DataOptions, Dataset, read_dataset};
pub use dist::ProcessGroup;
pub use error::{Error, Result};
pub use estimate::{MemoryEstimate, estimate};
pub use evaluate::{EvalOptions, evaluate, evaluate_in};
pub use generate::{Chat, GenerateOptions, Generated, generate};
pub use metrics::{Metrics, accuracy, f1, matthews, mse, pearson, spearman};
pub use objective::{ExampleScores, Objective};
pub use observer::{Event, Observe, Observer};
pub use rate::{FoundRate, RateSearch};
pub use sampling::Sampling;
pub use session::{Session, SessionOptions};
pub use summary::{Status, Summary};
pub use trainer::{DataSummary, MixedSource, Preview, PreviewSpan, RatePlan, StopFlag, Trainer};
pub use trial::{ExpectedTime, Measured, Trial, expected_time, trial};
