//! Objectives: what a model is trained for. Everything about one objective is in one file: the records that it takes, their
//! targets, the loss, the metrics, and the head that it needs.
//!
//! To add an objective, write its file and add it to [`objectives`].

mod classification;
mod example_scores;
mod next_token;
mod regression;

pub use classification::Classification;
pub use example_scores::{Column, ColumnType, ExampleScores};
pub use next_token::NextToken;
pub use regression::Regression;

use crate::batching::{batch, eval_batches};
use crate::metrics::Metrics;
use crate::{Error, Result};
use loram_io::ModelConfig;
use loram_io::config::{CheckpointHead, head_entries};
use loram_io::data::{Body, Example, Format, Record};
use loram_nn::{Batch, BatchLoss, HeadKind, Loss, Model};
use serde_json::{Map, Value};
use std::fmt::Debug;

/// Largest number of tokens in a batch when single examples are scored.
const SCORE_TOKENS: usize = 8192;

/// All objectives. Where several could be meant, the last that fits is taken.
pub fn objectives() -> &'static [&'static dyn Objective] {
    &[&NextToken, &Classification, &Regression]
}

/// The objective of this name or alias.
pub fn find(name: &str) -> Option<&'static dyn Objective> {
    objectives().iter().copied().find(|o| o.name() == name || o.aliases().contains(&name))
}

/// The objective that records are for.
pub fn of_records(records: &[Record]) -> &'static dyn Objective {
    let takes = |o: &&&'static dyn Objective| records.iter().any(|r| o.takes(&r.body));
    *objectives().iter().rev().find(takes).unwrap_or(&objectives()[0])
}

/// The objective that a model, or an adapter on it, was trained for.
pub fn of_model(trained: &Trained<'_>) -> &'static dyn Objective {
    *objectives().iter().rev().find(|o| o.trained(trained)).unwrap_or(&objectives()[0])
}

/// A figure of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name in configurations and files.
    pub name: &'static str,
    /// Name in tables and reports.
    pub title: &'static str,
    /// Name on a line of progress; `None` leaves it out, because another metric says the same.
    pub short: Option<&'static str>,
    /// True for shares of 1, which are shown in percent.
    pub percent: bool,
    /// True when more is better: the default of `greater_is_better`.
    pub higher_is_better: bool,
    /// True for figures over tokens, false for figures over examples.
    pub per_token: bool,
}

impl Metric {
    /// A metric over examples of which more is better.
    pub const fn new(name: &'static str, title: &'static str, short: &'static str) -> Metric {
        Metric { name, title, short: Some(short), percent: false, higher_is_better: true, per_token: false }
    }

    /// The mean loss, which every objective has.
    pub const LOSS: Metric = Metric { higher_is_better: false, ..Metric::new("loss", "loss", "loss") };
}

/// The metrics of all objectives, each once: those of which less is better, then the others.
pub fn metrics() -> Vec<Metric> {
    let mut all: Vec<Metric> = Vec::new();
    for m in objectives().iter().flat_map(|o| o.metrics()) {
        if !all.contains(m) {
            all.push(*m);
        }
    }
    all.sort_by_key(|m| m.higher_is_better);
    all
}

/// The metric of this name.
pub fn metric(name: &str) -> Option<Metric> {
    objectives().iter().flat_map(|o| o.metrics()).find(|m| m.name == name).copied()
}

/// Facts about a trained model or adapter.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// Configuration of the model.
    pub config: &'a ModelConfig,
    /// The adapter's `task_type`.
    pub task_type: Option<&'a str>,
    /// Outputs of the adapter's own head.
    pub outputs: Option<usize>,
    /// Labels in the adapter's recipe.
    pub labels: Option<&'a [String]>,
}

impl Trained<'_> {
    /// True when the model or the adapter has a sequence-classification head.
    pub fn is_pooled(&self) -> bool {
        self.task_type == Some("SEQ_CLS") || *self.config.head() == CheckpointHead::SequenceClassification
    }

    /// Number of outputs of the head.
    pub fn outputs(&self) -> usize {
        self.outputs.unwrap_or(self.config.labels().len())
    }
}

/// Results of an evaluation, of which an objective computes metrics.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// Sums of the loss.
    pub loss: BatchLoss,
    /// Outputs of a pooled head, (examples, outputs) row-major.
    pub outputs: &'a [f32],
    /// The examples.
    pub examples: &'a [Example],
}

impl Evaluation<'_> {
    /// Metrics with the mean loss and the tokens of all examples.
    pub fn metrics(&self) -> Metrics {
        let mean = if self.loss.counted == 0 { 0.0 } else { self.loss.loss_sum / self.loss.counted as f64 };
        let tokens = self.examples.iter().map(|e| e.input_ids.len() as u64).sum();
        Metrics::new(mean, tokens, self.examples.len() as u64)
    }
}

/// The objective that a model is trained for.
pub trait Objective: Debug + Send + Sync {
    /// Name in configurations (`task`) and in previews.
    fn name(&self) -> &'static str;

    /// Other names that configurations may use.
    fn aliases(&self) -> &'static [&'static str] {
        &[]
    }

    /// PEFT's `task_type`.
    fn task_type(&self) -> &'static str;

    /// True for records that this objective learns from.
    fn takes(&self, body: &Body) -> bool;

    /// The format in which records are read when this objective is asked for and no format is; `None` recognises it.
    fn format(&self) -> Option<Format> {
        None
    }

    /// Names of the classes in training data; empty for objectives without classes.
    fn labels(&self, _records: &[Record], _config: &ModelConfig, _source: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The head for these labels.
    fn head(&self, labels: &[String]) -> HeadKind;

    /// True when a model that is known by this was trained for the objective.
    fn trained(&self, trained: &Trained<'_>) -> bool;

    /// Labels of a trained model.
    fn trained_labels(&self, _trained: &Trained<'_>) -> Vec<String> {
        Vec::new()
    }

    /// The loss of a batch of examples with their targets. `model` is there for objectives that compare with the model
    /// without its adapters ([`Model::without_adapters`]); `batch` are the inputs of the examples.
    fn loss(&self, model: &mut Model, batch: &Batch, examples: &[&Example]) -> Result<Box<dyn Loss>>;

    /// The metrics of an evaluation.
    fn metrics(&self) -> &'static [Metric];

    /// Computes the metrics.
    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics>;

    /// Name of this objective's figures of single examples in `scores.json`.
    fn scores_kind(&self) -> &'static str;

    /// The columns of these figures.
    fn score_columns(&self) -> &'static [(&'static str, ColumnType)];

    /// Runs the model and returns figures of each example, from which [`Objective::score`] computes metrics.
    fn example_scores(&self, model: &mut Model, examples: &[Example], batch_size: usize) -> Result<ExampleScores>;

    /// A metric over chosen examples, which may repeat; `None` where it is not defined or not one of this objective.
    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64>;
}

impl PartialEq for dyn Objective {
    fn eq(&self, other: &dyn Objective) -> bool {
        self.name() == other.name()
    }
}

/// The inputs of examples and the loss with their targets.
pub fn batch_and_loss<'a>(
    objective: &dyn Objective,
    model: &mut Model,
    examples: impl IntoIterator<Item = &'a Example>,
) -> Result<(Batch, Box<dyn Loss>)> {
    let examples: Vec<&Example> = examples.into_iter().collect();
    let batch = batch(examples.iter().copied());
    let loss = objective.loss(model, &batch, &examples)?;
    Ok((batch, loss))
}

/// `config.json` entries of a fully fine-tuned model with this head.
pub fn config_entries(objective: &dyn Objective, config: &ModelConfig, labels: &[String]) -> Map<String, Value> {
    match objective.head(labels) {
        HeadKind::LanguageModel => Map::new(),
        HeadKind::Pooled { .. } => head_entries(config, labels),
    }
}

/// Outputs of a pooled head for all examples, (examples, outputs) row-major.
fn pooled_outputs(model: &Model, examples: &[Example], batch_size: usize) -> Result<Vec<f32>> {
    let lengths: Vec<usize> = examples.iter().map(|e| e.input_ids.len()).collect();
    let mut out = Vec::new();
    for range in eval_batches(&lengths, batch_size, SCORE_TOKENS) {
        out.extend(model.logits(&batch(&examples[range]))?);
    }
    Ok(out)
}

/// The error of an example without a target of the kind that an objective needs.
fn no_target(objective: &dyn Objective) -> Error {
    Error::Data(format!("task {}: an example has no label of that task", objective.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let mut names: Vec<&str> = Vec::new();
        for o in objectives() {
            for name in [o.name()].iter().chain(o.aliases()) {
                assert_eq!(find(name).unwrap(), *o);
                assert!(!names.contains(name), "{name} twice");
                names.push(name);
            }
            assert_eq!(o.metrics()[0], Metric::LOSS);
        }
        assert!(find("nothing").is_none());
    }

    #[test]
    fn metrics_are_unique_and_ordered() {
        let all = metrics();
        let names: Vec<&str> = all.iter().map(|m| m.name).collect();
        assert_eq!(names[..3], ["loss", "perplexity", "mse"]);
        assert!(all[3..].iter().all(|m| m.higher_is_better));
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "two metrics are called {name}");
        }
    }
}
