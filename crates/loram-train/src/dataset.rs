//! Data for a run: records, the objective that they are for, and examples made of tokens.

use crate::base::{Base, stage};
use crate::batching::permutation;
use crate::config::TrainConfig;
use crate::objective::{LossSettings, Objective, Task, objectives, of_records};
use crate::observer::{Observer, Stage};
use crate::{Error, Result};
use loram_io::checksum::hex;
use loram_io::data::{
    DataFormat, DataSpec, Example, Labels, PrepareReport, Preparer, Record, Text, fetch_data, load_records,
};
use loram_nn::HeadKind;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Longest example by default: longer ones cost memory that nobody asked for.
pub const DEFAULT_MAX_LENGTH: usize = 1024;

/// Where data are and how they become examples.
#[derive(Debug, Clone, Default)]
pub struct DataOptions {
    /// Files or generated sources.
    pub paths: Vec<String>,
    /// Weights of the paths; empty: all records of all of them.
    pub weights: Vec<f64>,
    /// Format; `None`: recognised.
    pub format: Option<&'static dyn DataFormat>,
    /// Name that is expected → name in the data.
    pub columns: BTreeMap<String, String>,
    /// Column of plain texts.
    pub text_field: Option<String>,
    /// Use at most this many records, chosen by the seed.
    pub max_samples: Option<usize>,
    /// Seed of that choice.
    pub seed: u64,
    /// Longest example in tokens; `None`: the model's limit, at most [`DEFAULT_MAX_LENGTH`].
    pub max_length: Option<usize>,
    /// Count the loss on completions only, where there is a prompt.
    pub completion_only: bool,
    /// Chat template in place of the model's.
    pub chat_template: Option<String>,
    /// Variables of the chat template for all records.
    pub chat_template_kwargs: Map<String, Value>,
    /// The objective that was asked for; `None`: that of the records.
    pub task: Option<&'static dyn Objective>,
    /// Settings of the loss.
    pub loss: LossSettings,
}

impl DataOptions {
    /// The paths that are read together: each by itself where they have weights.
    fn sources(&self) -> Vec<&[String]> {
        match self.weights.is_empty() {
            true => vec![&self.paths],
            false => self.paths.chunks(1).collect(),
        }
    }

    /// The most records of each source: its share of `max_samples`.
    fn limits(&self) -> Vec<Option<usize>> {
        let sum: f64 = self.weights.iter().sum();
        let share = |weight: &f64| self.max_samples.map(|n| (weight / sum * n as f64).ceil() as usize);
        match self.weights.is_empty() {
            true => vec![self.max_samples],
            false => self.weights.iter().map(share).collect(),
        }
    }

    /// The training data of a configuration.
    pub fn training(c: &TrainConfig) -> DataOptions {
        DataOptions {
            paths: c.train_data.clone(),
            weights: c.data_weights.clone(),
            format: c.dataset_format,
            columns: c.columns.clone(),
            text_field: c.dataset_text_field.clone(),
            max_samples: c.max_samples,
            seed: c.data_seed.unwrap_or(c.seed),
            max_length: c.max_length,
            completion_only: c.completion_only_loss.unwrap_or(true),
            chat_template: c.chat_template.clone(),
            chat_template_kwargs: c.chat_template_kwargs.clone(),
            task: c.task,
            loss: c.loss_settings(),
        }
    }

    /// The calibration data of a configuration, of which all are read; the training data where there are none.
    pub fn calibration(c: &TrainConfig) -> DataOptions {
        match c.calibration_data.is_empty() {
            true => DataOptions::training(c),
            false => DataOptions {
                paths: c.calibration_data.clone(),
                weights: Vec::new(),
                max_samples: None,
                ..DataOptions::training(c)
            },
        }
    }

    /// The evaluation data of a configuration.
    pub fn evaluation(c: &TrainConfig) -> DataOptions {
        DataOptions {
            paths: c.eval_data.clone(),
            weights: Vec::new(),
            max_samples: c.max_eval_samples,
            ..DataOptions::training(c)
        }
    }
}

/// Data of one of the paths, where they are mixed by weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// The path.
    pub name: String,
    /// Its examples.
    pub examples: usize,
    /// Its weight.
    pub weight: f64,
}

/// A prepared data set.
pub struct Dataset {
    /// Examples, in the order of the data.
    pub examples: Vec<Example>,
    /// Counts.
    pub report: PrepareReport,
    /// The objective that they are for.
    pub objective: &'static dyn Objective,
    /// Sources that are mixed by weights, in the order of their examples; empty where there are no weights.
    pub sources: Vec<Source>,
    /// Names of the classes.
    pub labels: Vec<String>,
    /// Settings of the loss.
    pub loss: LossSettings,
    /// Longest example allowed, in tokens.
    pub max_length: usize,
    /// True when there are chats among the records.
    pub chat: bool,
    /// Number of prompts that end in a space.
    pub prompts_with_space: usize,
    /// Makes more of the same.
    pub preparer: Preparer,
}

impl Dataset {
    /// The head that a model needs for these data.
    pub fn head(&self) -> HeadKind {
        self.objective.head(&self.labels)
    }

    /// The objective with its labels and settings.
    pub fn task(&self) -> Task<'_> {
        Task { objective: self.objective, labels: &self.labels, settings: &self.loss }
    }
}

/// The objective and labels of a model for which data are read.
#[derive(Debug, Clone, Copy)]
pub enum Known<'a> {
    /// Nothing: both follow from the data, and from the labels of a checkpoint with a head.
    Nothing,
    /// These.
    Fixed(&'static dyn Objective, &'a [String]),
    /// These, or those of the data where they are for an objective with the same head.
    Head(&'static dyn Objective, &'a [String]),
}

/// Reads records and makes examples of them.
pub fn read_dataset(
    base: &Base,
    options: &DataOptions,
    known: Known<'_>,
    observer: &mut dyn Observer,
) -> Result<Dataset> {
    let source = options.paths.join(", ");
    stage(observer, Stage::Data, 0, 0, &source);
    let mut wanted = match known {
        Known::Fixed(objective, _) => Some(objective),
        Known::Head(..) | Known::Nothing => options.task,
    };
    let spec = DataSpec {
        paths: Vec::new(),
        format: options.format.or_else(|| wanted.and_then(|o| o.format())),
        columns: options.columns.clone(),
        text_field: options.text_field.clone(),
    };
    let limits = options.limits();
    let (mut records, mut counts) = (Vec::new(), Vec::new());
    for (paths, limit) in options.sources().into_iter().zip(&limits) {
        let spec = DataSpec { paths: fetched(paths, observer)?, ..spec.clone() };
        let read = sample(load_records(&spec)?, *limit, options.seed);
        let read = match wanted {
            Some(objective) => objective.records(read),
            None => read,
        };
        counts.push(read.len());
        records.extend(read);
    }
    if let Known::Head(objective, labels) = known {
        let of_data = of_records(&records).filter(|o| o.head(labels) == objective.head(labels));
        wanted = wanted.or(of_data).or(Some(objective));
    }
    let objective = objective_for(&records, wanted)?;
    objective.check(&options.loss)?;
    let labels = match known {
        Known::Fixed(_, labels) | Known::Head(_, labels) => labels.to_vec(),
        Known::Nothing => objective.labels(&records, &base.config, &source)?,
    };
    let limit = base.max_length();
    let max_length = options.max_length.unwrap_or(limit.min(DEFAULT_MAX_LENGTH));
    if max_length > base.config.max_length() {
        return Err(Error::Config(format!(
            "max_length is {max_length}, but `{}` is made for at most {} tokens",
            base.name,
            base.config.max_length()
        )));
    }
    let mut preparer = Preparer::new(base.tokenizer.clone(), max_length, options.chat_template.clone());
    preparer.chat_template_kwargs.clone_from(&options.chat_template_kwargs);
    preparer.completion_only = options.completion_only;
    preparer.labels = Labels { names: labels.clone() };
    let total = records.len() as u64;
    let (mut examples, mut report, mut sources) = (Vec::new(), PrepareReport::default(), Vec::new());
    let mut rest = &records[..];
    for (i, n) in counts.into_iter().enumerate() {
        let (these, others) = rest.split_at(n);
        let before = records.len() - rest.len();
        rest = others;
        preparer.max_examples = limits[i];
        let (made, of_these) = preparer
            .prepare_with(these, &mut |done| stage(observer, Stage::Data, (before + done) as u64, total, &source))?;
        report.add(of_these);
        if let Some(&weight) = options.weights.get(i) {
            sources.push(Source { name: options.paths[i].clone(), examples: made.len(), weight });
        }
        examples.extend(made);
    }
    stage(observer, Stage::Data, records.len() as u64, records.len() as u64, &source);
    let chat = records.iter().any(Record::is_chat);
    let ends = |t: &Text| matches!(t, Text::PromptCompletion { prompt, .. } if prompt.ends_with(' '));
    let prompts_with_space = records.iter().filter(|r| r.texts.iter().any(ends)).count();
    let loss = LossSettings { max_length, ..options.loss.clone() };
    Ok(Dataset { examples, report, objective, sources, labels, loss, max_length, chat, prompts_with_space, preparer })
}

/// The files that data paths name, those of the hub downloaded.
pub(crate) fn fetched(paths: &[String], observer: &mut dyn Observer) -> Result<Vec<String>> {
    Ok(fetch_data(paths, &mut |d| stage(observer, Stage::Download, d.done, d.total, d.file))?)
}

/// So many records, chosen by the seed, in their order: data are often sorted, by label or by source. Documents, which are cut
/// into pieces that are counted later, all stay, in an order of the seed.
fn sample(records: Vec<Record>, limit: Option<usize>, seed: u64) -> Vec<Record> {
    let documents = records.iter().any(|r| matches!(r.texts[..], [Text::Document(_)]));
    let Some(limit) = limit.filter(|n| documents || *n < records.len()) else { return records };
    let mut order = permutation(records.len(), seed, 0);
    if !documents {
        order.truncate(limit);
        order.sort_unstable();
    }
    let mut records: Vec<Option<Record>> = records.into_iter().map(Some).collect();
    order.into_iter().filter_map(|i| records[i].take()).collect()
}

/// The objective of these records: the one that is wanted, else the one that they are for. It must take each of them.
fn objective_for(records: &[Record], wanted: Option<&'static dyn Objective>) -> Result<&'static dyn Objective> {
    let objective = wanted.or_else(|| of_records(records)).unwrap_or(objectives()[0]);
    let Some(other) = records.iter().find(|r| !objective.takes(r)) else { return Ok(objective) };
    let found = of_records(std::slice::from_ref(other)).map_or("no known task", |o| o.name());
    Err(Error::Data(format!("{}: the record is for {found}, the task is {}", other.at, objective.name())))
}

/// The examples on which a data-driven initialisation runs the model: `calibration_samples` of them, chosen by the seed.
pub fn calibration_examples(config: &TrainConfig, examples: &[Example]) -> Vec<Example> {
    let order = permutation(examples.len(), config.seed, 0);
    order.into_iter().take(config.calibration_samples).map(|i| examples[i].clone()).collect()
}

/// Checksum of prepared examples.
pub(crate) fn data_checksum(examples: &[Example]) -> String {
    let mut hash = Sha256::new();
    for e in examples {
        for s in &e.sequences {
            hash.update((s.input_ids.len() as u64).to_le_bytes());
            s.input_ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            hash.update(s.loss_mask.iter().map(|&m| u8::from(m)).collect::<Vec<_>>());
        }
        hash.update(format!("{:?}", e.target));
    }
    hex(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_chooses_records() {
        let records = |text: fn(String) -> Text| -> Vec<Record> {
            (0..100).map(|i| Record::new(format!("a:{i}"), text(i.to_string()))).collect()
        };
        let at = |list: Vec<Record>| list.into_iter().map(|r| r.at[2..].parse::<usize>().unwrap()).collect::<Vec<_>>();
        let plain = || records(Text::Plain);
        let chosen = at(sample(plain(), Some(10), 1));
        assert!(chosen.len() == 10 && chosen.is_sorted() && chosen[9] > 50, "not the first ones: {chosen:?}");
        assert_eq!(at(sample(plain(), Some(10), 1)), chosen);
        assert_ne!(at(sample(plain(), Some(10), 2)), chosen);
        assert_eq!(at(sample(plain(), Some(100), 1)), (0..100).collect::<Vec<_>>());
        // the pieces of documents are counted when they are cut
        let documents = at(sample(records(Text::Document), Some(10), 1));
        assert!(documents.len() == 100 && !documents.is_sorted());
    }
}
