//! The interface of an objective, and the figures of single examples that it computes.

use super::column::{Column, ColumnType};
use super::metric::Metric;
use super::settings::LossSettings;
use crate::metrics::Metrics;
use crate::{Error, Result};
use loram_io::ModelConfig;
use loram_io::config::{ProblemType, head_entries};
use loram_io::data::{DataFormat, Example, Labels, Record};
use loram_nn::{Batch, BatchLoss, HeadKind, Loss, Model};
use serde_json::{Map, Value};
use std::fmt::Debug;

/// Facts about a trained model or adapter.
#[derive(Debug, Clone, Copy)]
pub struct Trained<'a> {
    /// Configuration of the model.
    pub config: &'a ModelConfig,
    /// The adapter's own head.
    pub head: Option<HeadKind>,
    /// The kind of problem, where the adapter or the model names one.
    pub problem_type: Option<ProblemType>,
    /// Labels in the adapter's recipe.
    pub labels: Option<&'a [String]>,
}

impl Trained<'_> {
    /// The head: that of the adapter, else that of the model. A model saved without one has been trained for none.
    pub fn head(&self) -> HeadKind {
        self.head.or(self.config.trained_head()).unwrap_or(HeadKind::LanguageModel)
    }

    /// True when the head reads whole sequences.
    pub fn is_pooled(&self) -> bool {
        matches!(self.head(), HeadKind::Pooled { .. })
    }

    /// Number of outputs of the head.
    pub fn outputs(&self) -> usize {
        self.head().outputs().unwrap_or(self.config.labels().len())
    }

    /// Names of the outputs: the adapter's, else the model's where their number fits, else numbers.
    pub fn label_names(&self) -> Vec<String> {
        let (n, names) = (self.outputs(), &self.config.labels().names);
        match self.labels {
            Some(labels) => labels.to_vec(),
            None if names.len() == n => names.clone(),
            None => (0..n).map(|i| i.to_string()).collect(),
        }
    }
}

/// An objective with what a run or a trained model settles of it.
#[derive(Debug, Clone, Copy)]
pub struct Task<'a> {
    /// The objective.
    pub objective: &'a dyn Objective,
    /// Names of the labels.
    pub labels: &'a [String],
    /// Settings of the loss.
    pub settings: &'a LossSettings,
}

impl<'a> Task<'a> {
    /// An objective with these labels and the default settings.
    pub fn new(objective: &'a dyn Objective, labels: &'a [String]) -> Task<'a> {
        static DEFAULT: LossSettings = LossSettings::DEFAULT;
        Task { objective, labels, settings: &DEFAULT }
    }
}

/// A forward pass: a part of a batch of examples, or all of it.
#[derive(Debug)]
pub struct Pass<'a> {
    /// The inputs of the examples.
    pub batch: Batch,
    /// The examples.
    pub examples: Vec<&'a Example>,
}

/// Results of an evaluation, of which an objective computes metrics.
#[derive(Debug)]
pub struct Evaluation<'a> {
    /// Sums of the loss.
    pub loss: BatchLoss,
    /// Outputs of a pooled head, (examples or tokens, outputs) row-major; for a language model the figures of the loss
    /// ([`Loss::figures`]).
    pub outputs: &'a [f32],
    /// The examples.
    pub examples: &'a [Example],
    /// Names of the labels.
    pub labels: &'a [String],
}

impl Evaluation<'_> {
    /// Metrics with the mean loss and the tokens of all examples.
    pub fn metrics(&self) -> Metrics {
        let mean = if self.loss.counted == 0 { 0.0 } else { self.loss.loss_sum / self.loss.counted as f64 };
        let tokens = self.examples.iter().map(|e| e.tokens() as u64).sum();
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

    /// The kind of problem that is kept with a head of this objective; `None` where its outputs and labels say it.
    fn problem_type(&self) -> Option<ProblemType> {
        None
    }

    /// True for records that this objective learns from.
    fn takes(&self, record: &Record) -> bool;

    /// The format in which records are read when this objective is asked for and no format is; `None` recognises it.
    fn format(&self) -> Option<&'static dyn DataFormat> {
        None
    }

    /// Names of the classes in training data; empty for objectives without classes.
    fn labels(&self, _records: &[Record], _config: &ModelConfig, _source: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// The head for these labels.
    fn head(&self, labels: &[String]) -> HeadKind;

    /// The loss of a uniform guess among so many outputs, where that means something.
    fn guess(&self, _outputs: usize) -> Option<f64> {
        None
    }

    /// True when a model that is known by this was trained for the objective.
    fn trained(&self, trained: &Trained<'_>) -> bool;

    /// Labels of a trained model.
    fn trained_labels(&self, _trained: &Trained<'_>) -> Vec<String> {
        Vec::new()
    }

    /// True where whole answers are compared or judged: such examples are not packed, and the model's own dropout is off, as with
    /// TRL's `disable_dropout`.
    fn over_answers(&self) -> bool {
        false
    }

    /// True where the loss compares with the model before training, which [`add_reference`](super::add_reference) can settle for all
    /// examples at once.
    fn reference(&self) -> bool {
        false
    }

    /// True where the loss switches adapters off in every step, whatever is settled before.
    fn needs_adapters(&self, _settings: &LossSettings) -> bool {
        false
    }

    /// Keys of the configuration that the loss reads, among those of preferences.
    fn settings(&self) -> &'static [&'static str] {
        &[]
    }

    /// Checks the settings of the loss.
    fn check(&self, _settings: &LossSettings) -> Result<()> {
        Ok(())
    }

    /// The answers to learn, where a learning rate is searched for by their likelihood and not by the loss: one step of a loss that
    /// compares answers lowers it for far larger rates than a run bears.
    fn likely(&self, _examples: &[Example]) -> Option<Vec<Example>> {
        None
    }

    /// The records that are learnt from, out of those that were read.
    fn records(&self, records: Vec<Record>) -> Vec<Record> {
        records
    }

    /// The loss of each forward pass of a batch, with the targets of its examples. The rows of a language-model head are the
    /// tokens of all sequences of all examples, those of a pooled head the sequences. `model` is there for objectives that
    /// compare with the model without its adapters ([`Model::without_adapters`]).
    fn losses(&self, model: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>>;

    /// The columns of an answer: from the outputs of the head for a text, or for each of its words. Empty for objectives whose answers
    /// are texts.
    fn prediction(&self, _outputs: &[&[f32]], _labels: &[String]) -> Map<String, Value> {
        Map::new()
    }

    /// The metrics of an evaluation.
    fn metrics(&self) -> &'static [Metric];

    /// Computes the metrics.
    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics>;

    /// Name of this objective's figures of single examples in `scores.json`.
    fn scores_kind(&self) -> &'static str;

    /// The columns of these figures.
    fn score_columns(&self) -> &'static [(&'static str, ColumnType)];

    /// Runs the model and returns figures of each example, from which [`Objective::score`] computes metrics.
    fn example_scores(
        &self,
        model: &mut Model,
        task: Task<'_>,
        examples: &[Example],
        batch_size: usize,
    ) -> Result<ExampleScores>;

    /// A metric over chosen examples, which may repeat; `None` where it is not defined or not one of this objective.
    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64>;
}

impl PartialEq for dyn Objective {
    fn eq(&self, other: &dyn Objective) -> bool {
        self.name() == other.name()
    }
}

/// Figures of single examples. In a file: an object with the `kind` and the columns.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleScores {
    pub(super) objective: &'static dyn Objective,
    pub(super) columns: Vec<(&'static str, Column)>,
}

impl ExampleScores {
    /// Figures of an objective, in the order of its [`Objective::score_columns`].
    ///
    /// # Errors
    /// A column that is missing, of another type, or of another length than the others.
    pub fn new(
        objective: &'static dyn Objective,
        mut found: Vec<(String, Column)>,
    ) -> std::result::Result<ExampleScores, String> {
        let mut columns = Vec::new();
        for &(name, wanted) in objective.score_columns() {
            let at = found.iter().position(|c| c.0 == name).ok_or_else(|| format!("no `{name}`"))?;
            let column = found.swap_remove(at).1.into_type(wanted);
            columns.push((name, column.ok_or_else(|| format!("`{name}`: expected {wanted:?}").to_lowercase())?));
        }
        let mut lengths = columns.iter().filter_map(|(name, c)| Some((name, c.len()?)));
        if let Some((first, n)) = lengths.next()
            && let Some((other, m)) = lengths.find(|l| l.1 != n)
        {
            return Err(format!("{n} figures in `{first}`, {m} in `{other}`"));
        }
        Ok(ExampleScores { objective, columns })
    }

    /// Figures that an objective computed itself.
    pub(super) fn of<const N: usize>(objective: &'static dyn Objective, columns: [(&str, Column); N]) -> ExampleScores {
        let columns = columns.into_iter().map(|(name, column)| (name.to_string(), column)).collect();
        ExampleScores::new(objective, columns).expect("the columns of the objective, of equal length")
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.0 == name).map(|c| &c.1)
    }

    /// A column of numbers; empty when there is none.
    pub(super) fn reals(&self, name: &str) -> &[f64] {
        match self.column(name) {
            Some(Column::Real(v)) => v,
            _ => &[],
        }
    }

    /// A column of whole numbers; empty when there is none.
    pub(super) fn wholes(&self, name: &str) -> &[u64] {
        match self.column(name) {
            Some(Column::Whole(v)) => v,
            _ => &[],
        }
    }

    /// A column of lists; empty when there is none.
    pub(super) fn lists(&self, name: &str) -> &[Vec<u64>] {
        match self.column(name) {
            Some(Column::Lists(v)) => v,
            _ => &[],
        }
    }

    /// A number for all examples.
    pub(super) fn single(&self, name: &str) -> u64 {
        match self.column(name) {
            Some(Column::Single(n)) => *n,
            _ => 0,
        }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        self.columns.iter().find_map(|c| c.1.len()).unwrap_or(0)
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A metric over these examples, which may repeat; `None` where it is not finite, not defined, or not one of the
    /// objective.
    pub fn metric(&self, name: &str, chosen: &[usize]) -> Option<f64> {
        self.objective.score(self, name, chosen).filter(|x| x.is_finite())
    }

    /// A metric over all examples.
    pub fn overall(&self, name: &str) -> Option<f64> {
        self.metric(name, &(0..self.len()).collect::<Vec<_>>())
    }
}

/// `config.json` entries of a fully fine-tuned model with this head.
pub fn config_entries(objective: &dyn Objective, config: &ModelConfig, labels: &[String]) -> Map<String, Value> {
    match objective.head(labels) {
        HeadKind::LanguageModel => Map::new(),
        head => head_entries(config, head, labels, objective.problem_type()),
    }
}

/// The labels of the checkpoint's own head, where that is one for tokens (or for sequences) and knows all that occur, else those
/// that occur.
pub(super) fn known_labels(records: &[Record], config: &ModelConfig, tokens: bool) -> Result<Vec<String>> {
    let own = config.trained_head().filter(|head| matches!(head, HeadKind::Tokens { .. }) == tokens);
    let own = own.map(|_| Labels { names: config.labels().names.clone() });
    let known = own.filter(|own| records.iter().filter_map(|r| r.label.as_ref()).all(|label| own.know(label)));
    match known {
        Some(own) => Ok(own.names),
        None => Ok(Labels::from_records(records)?.names),
    }
}

/// The error of an example without a target of the kind that an objective needs.
pub(super) fn no_target(objective: &dyn Objective) -> Error {
    Error::Data(format!("task {}: an example has no label of that task", objective.name()))
}
