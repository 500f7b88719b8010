//! What a run tells while it goes on: enough for a progress bar, a log and a program that reads JSON.

use crate::magnitude::Magnitudes;
use crate::{Metrics, Summary};

use serde::Serialize;
use std::path::PathBuf;

/// Receives the events of a run, in order, on the thread of the run.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
}

/// Looks at nothing.
impl Observer for () {
    fn event(&mut self, _: &Event) {}
}

/// A closure as an observer: `&mut observe(|event| …)`.
pub struct Observe<F>(pub F);

impl<F: FnMut(&Event)> Observer for Observe<F> {
    fn event(&mut self, event: &Event) {
        (self.0)(event)
    }
}

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    Info,
    /// Something the user should look at.
    Warning,
}

/// What is being done before training and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Files from the hub; `done` and `total` are bytes.
    Download,
    /// Records into tokens; counts are records.
    Data,
    /// Weights of the model.
    Model,
    /// Starts of the adapters; counts are layers.
    Initialization,
    /// An evaluation; counts are examples.
    Evaluate,
    /// Sample texts; counts are prompts.
    Sample,
    /// The final adapter.
    Save,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A line for the user.
    Message {
        /// How much it matters.
        level: Level,
        /// The line.
        text: String,
    },
    /// A stage that has begun (`done` 0) or moved on; it is over when `done == total`.
    Stage {
        /// Which one.
        stage: Stage,
        /// So far.
        done: u64,
        /// In all.
        total: u64,
        /// File, layer or data set at hand.
        detail: String,
    },
    /// Everything is loaded and training is about to begin.
    Plan(RunPlan),
    /// An optimiser step is over.
    Step(StepInfo),
    /// A line of metrics.jsonl was written.
    Log(LogRecord),
    /// An evaluation is over.
    Evaluated {
        /// Optimiser steps so far.
        step: usize,
        /// Passes over the data so far.
        epoch: f64,
        /// The figures.
        metrics: Metrics,
        /// Whether it is the best so far; false when none is tracked.
        best: bool,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Optimiser steps so far.
        step: usize,
        /// Its folder.
        path: PathBuf,
    },
    /// A text that the model wrote.
    Sample(Sample),
    /// The run is over.
    Done(Box<Summary>),
}

/// What a run is going to do.
#[derive(Debug, Clone, Serialize)]
pub struct RunPlan {
    /// Training examples.
    pub examples: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Evaluation examples.
    pub eval_examples: usize,
    /// Training examples that were cut at max_length.
    pub truncated: usize,
    /// Optimiser steps in all.
    pub total_steps: usize,
    /// Steps that an earlier run has done.
    pub start_step: usize,
    /// Optimiser steps per pass over the data.
    pub steps_per_epoch: usize,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// All parameters of the model with its adapters.
    pub parameters: u64,
    /// Adapted layers.
    pub adapted_layers: usize,
    /// Canonical name of the start, or `full`.
    pub scheme: String,
    /// Run folder.
    pub output_dir: PathBuf,
}

/// An optimiser step.
#[derive(Debug, Clone, Serialize)]
pub struct StepInfo {
    /// Steps so far, this one included.
    pub step: usize,
    /// Steps in all.
    pub total_steps: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean loss per counted token (or example) of this step.
    pub loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model in this step.
    pub tokens: u64,
    /// Tokens per second over the last steps.
    pub tokens_per_second: f64,
    /// Seconds since training began, without those of earlier runs.
    pub elapsed: f64,
    /// Estimated seconds to the end.
    pub eta: f64,
    /// Resident memory in bytes; 0 where the system does not say.
    pub rss: u64,
}

/// A line of `metrics.jsonl`: training figures since the last line, an evaluation, or magnitudes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, serde::Deserialize)]
pub struct LogRecord {
    /// Optimiser steps so far.
    pub step: usize,
    /// Passes over the data so far.
    pub epoch: f64,
    /// Mean training loss per counted token since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Gradient norm of the last step, before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Share of the counted tokens that were predicted, since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Tokens trained on so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_seen: Option<u64>,
    /// Tokens per second since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Resident memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Seconds since this program began training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// How far each adapted layer has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magnitude: Option<Magnitudes>,
    /// Figures of an evaluation, with `eval_` before their names.
    #[serde(flatten)]
    pub eval: std::collections::BTreeMap<String, f64>,
}

/// A text that the model wrote.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// `before` or `after`.
    pub when: &'static str,
    /// What it was given.
    pub prompt: String,
    /// What it wrote.
    pub text: String,
    /// What the data say, where they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}
