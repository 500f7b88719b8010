//! One run from a configuration to a run folder.

mod finish;
mod preview;
mod prompts;
mod run;
mod setup;

pub use preview::{DataSummary, Preview, PreviewSpan};

use crate::config::TrainConfig;
use crate::observer::{Observer, Sample};
use crate::report::Reporter;
use crate::{Metrics, Result};
use loram_nn::cuda;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Asks a run to stop after the current step: it then saves a checkpoint and returns. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks to stop. Safe in a signal handler.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// The flag itself, for code that knows nothing of this crate, such as a signal handler.
    pub fn shared(&self) -> Arc<AtomicBool> {
        self.0.clone()
    }

    /// True when a stop was requested.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A run that is ready to begin.
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainConfig,
    stop: StopFlag,
}

impl Trainer {
    /// A run of this configuration. Errors: keys that are missing or do not go together.
    pub fn new(config: TrainConfig) -> Result<Trainer> {
        config.check()?;
        Ok(Trainer { config, stop: StopFlag::default() })
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The flag that stops this run.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    /// Describes what the run would do, without loading weights or writing anything (`--dry-run`).
    pub fn preview(&self, observer: &mut dyn Observer) -> Result<Preview> {
        preview::preview(&self.config, observer)
    }

    /// Trains. The run folder is written as it goes; the same configuration, seed and machine give the same bits.
    ///
    /// Errors leave the run folder with what was saved before them.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Summary> {
        let mut reporter = Reporter::new(observer);
        // what fails on a GPU outside the model's passes
        cuda::catch(|| {
            Ok((|| {
                let setup = setup::Setup::new(&self.config, &mut reporter)?;
                run::Run::new(setup, &self.stop, &mut reporter)?.train()
            })())
        })?
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All steps were done.
    Finished,
    /// Evaluations stopped improving (`early_stopping_patience`).
    StoppedEarly,
    /// The stop flag was set; the run can resume from its checkpoint.
    Interrupted,
}

/// Summary of a run, as in `summary.json`.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How it ended.
    pub status: Status,
    /// Optimiser steps done, including those before the run was resumed.
    pub steps: usize,
    /// Steps that were planned.
    pub total_steps: usize,
    /// Epochs.
    pub epochs: f64,
    /// Mean loss over all steps.
    pub train_loss: f64,
    /// Loss of the last step.
    pub last_loss: f64,
    /// Evaluation before training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_before: Option<Metrics>,
    /// Evaluation of what was saved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_after: Option<Metrics>,
    /// Step of the best evaluation, where one is tracked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_step: Option<usize>,
    /// True when the weights of the best step were saved.
    pub took_best: bool,
    /// Canonical name of the initialisation scheme, or `full`.
    pub scheme: String,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// All parameters of the model with its adapters.
    pub parameters: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, over all processes of the run.
    pub seconds: f64,
    /// Tokens per second of training in this process.
    pub tokens_per_second: f64,
    /// Peak resident memory in bytes.
    pub peak_rss: u64,
    /// Peak GPU memory in bytes, for a run on a GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_gpu_memory: Option<u64>,
    /// Model that was adapted.
    pub model: String,
    /// Run folder.
    pub output_dir: PathBuf,
    /// The adapter, or in full fine-tuning the model; absent when the run was interrupted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adapter: Option<PathBuf>,
    /// The newest checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// Samples before and after training.
    pub samples: Vec<Sample>,
    /// Suggested next commands.
    pub next: Vec<String>,
}
