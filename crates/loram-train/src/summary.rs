//! The result of a run, as `summary.json` holds it.

use crate::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Name of the file of a run folder that holds the summary.
pub const SUMMARY: &str = "summary.json";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Peak learning rate; 0 in summaries of earlier versions.
    #[serde(default)]
    pub learning_rate: f64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Seconds of training, over all processes of the run.
    pub seconds: f64,
    /// Tokens per second of training in this process.
    pub tokens_per_second: f64,
    /// Peak resident memory in bytes.
    pub peak_rss: u64,
    /// Bytes of tensors on the CPU at their peak: parameters, gradients, optimiser state and activations.
    pub peak_tensors: u64,
    /// Bytes of the pages that held them at their peak, gaps included.
    pub peak_tensor_pages: u64,
    /// Estimated peak memory in bytes, as the dry run prints it.
    pub estimated_memory: u64,
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

/// A generated sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// `before` or `after`.
    pub when: String,
    /// The prompt.
    pub prompt: String,
    /// The generated text.
    pub text: String,
    /// The reference text, if the data have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
