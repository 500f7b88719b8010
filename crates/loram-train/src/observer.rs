//! Events of a run: everything that a progress bar, a log or a program that reads JSON needs.

use crate::Metrics;
use crate::groups::Group;
use crate::magnitude::Magnitudes;
use crate::summary::Summary;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub use crate::summary::Sample;

/// Receives the events of a run, in order, on the thread of the run.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: &Event);
}

/// Ignores every event.
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

/// Severity of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Informational.
    Info,
    /// A likely problem that does not stop the run.
    Warning,
}

/// A phase before or after training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Downloads files from the hub; `done` and `total` are bytes.
    Download,
    /// Tokenises records; counts are records.
    Data,
    /// Quantises the model's weights.
    Quantization,
    /// Loads the model's weights.
    Model,
    /// Computes log-probabilities of the reference of preferences; counts are examples.
    Reference,
    /// Searches for the learning rate; counts are rates tried, of a number that is not known before.
    LearningRate,
    /// Initialises adapters; counts are layers.
    Initialization,
    /// Evaluates; counts are examples.
    Evaluate,
    /// Generates sample texts; counts are prompts.
    Sample,
    /// Answers records; counts are records, or texts.
    Predict,
    /// Writes the final adapter.
    Save,
}

/// An event of a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A message for the user.
    Message {
        /// Its severity.
        level: Level,
        /// Its text.
        text: String,
    },
    /// Progress of a stage, from `done == 0` to `done == total`.
    Stage {
        /// The stage.
        stage: Stage,
        /// Units done.
        done: u64,
        /// Units in total.
        total: u64,
        /// Current file, layer or data set.
        detail: String,
    },
    /// Everything is loaded; training begins.
    Plan(RunPlan),
    /// An optimiser step finished.
    Step(StepInfo),
    /// A line of metrics.jsonl was written.
    Log(LogRecord),
    /// An evaluation finished.
    Evaluated {
        /// Optimiser steps done.
        step: usize,
        /// Epochs done, with a fraction.
        epoch: f64,
        /// Its metrics.
        metrics: Metrics,
        /// True when it is the best so far; false when no metric is tracked.
        best: bool,
    },
    /// A checkpoint was written.
    Saved {
        /// Optimiser steps done.
        step: usize,
        /// Its folder.
        path: PathBuf,
    },
    /// A generated sample.
    Sample(Sample),
    /// The run finished.
    Done(Box<Summary>),
}

/// Totals of a run, known before its first step.
#[derive(Debug, Clone, Serialize)]
pub struct RunPlan {
    /// Training examples.
    pub examples: usize,
    /// Their tokens.
    pub tokens: u64,
    /// Evaluation examples.
    pub eval_examples: usize,
    /// Training examples truncated at `max_length`.
    pub truncated: usize,
    /// Optimiser steps in total.
    pub total_steps: usize,
    /// Steps done before this process resumed the run.
    pub start_step: usize,
    /// Optimiser steps per epoch.
    pub steps_per_epoch: usize,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// All parameters of the model with its adapters.
    pub parameters: u64,
    /// Groups of parameters with their peak learning rates.
    pub groups: Vec<Group>,
    /// Adapted layers.
    pub adapted_layers: usize,
    /// Canonical name of the initialisation scheme, or `full`.
    pub scheme: String,
    /// Run folder.
    pub output_dir: PathBuf,
}

/// Figures of an optimiser step.
#[derive(Debug, Clone, Serialize)]
pub struct StepInfo {
    /// Steps done, including this one.
    pub step: usize,
    /// Steps in total.
    pub total_steps: usize,
    /// Epochs done, with a fraction.
    pub epoch: f64,
    /// Mean loss per counted token (or example) of this step.
    pub loss: f64,
    /// Learning rate of this step.
    pub learning_rate: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Tokens processed in this step.
    pub tokens: u64,
    /// Tokens per second over the last steps.
    pub tokens_per_second: f64,
    /// Seconds of training in this process.
    pub elapsed: f64,
    /// Estimated seconds left.
    pub eta: f64,
    /// Resident memory in bytes; 0 where the system does not say.
    pub rss: u64,
}

/// A line of `metrics.jsonl`: training metrics since the previous line, an evaluation, or magnitudes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// Optimiser steps so far.
    pub step: usize,
    /// Epochs done, with a fraction.
    pub epoch: f64,
    /// Mean training loss per counted token since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Learning rate of the last step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub learning_rate: Option<f64>,
    /// Learning rates of the last step by group of parameters, where there are several.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learning_rates: BTreeMap<String, f64>,
    /// Gradient norm of the last step, before clipping.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f64>,
    /// Token accuracy since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_accuracy: Option<f64>,
    /// Share of pairs whose chosen answer has the larger reward, since the last line.
    #[serde(default, rename = "rewards/accuracies", skip_serializing_if = "Option::is_none")]
    pub reward_accuracy: Option<f64>,
    /// Tokens trained on so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_seen: Option<u64>,
    /// Tokens per second since the last line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Resident memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    /// Seconds of training in this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// Magnitudes by adapted layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magnitude: Option<Magnitudes>,
    /// Metrics of an evaluation, prefixed with `eval_`.
    #[serde(flatten, deserialize_with = "figures")]
    pub eval: BTreeMap<String, f64>,
}

/// Figures by name; those that are NaN or infinite are null in files.
fn figures<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, f64>, D::Error> {
    let all = BTreeMap::<String, Option<f64>>::deserialize(from)?;
    Ok(all.into_iter().map(|(name, x)| (name, x.unwrap_or(f64::NAN))).collect())
}
