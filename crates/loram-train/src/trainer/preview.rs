//! The dry run: describes a run before it begins.

use super::data_warnings::data_warnings;
use super::passes::Passes;
use super::setup::{Data, read_data};
use crate::Result;
use crate::base::Base;
use crate::config::{FinetuningType, TrainConfig};
use crate::dataset::{Dataset, Source};
use crate::device::{self, Arithmetic};
use crate::estimate::MemoryEstimate;
use crate::observer::Observer;
use crate::run_folder::{self, Begin};
use loram_core::plan_layers;
use loram_io::data::{PrepareReport, Sequence, Target};
use loram_io::target_modules;
use serde::Serialize;

/// Description of a run before it begins.
#[derive(Debug, Clone, Serialize)]
pub struct Preview {
    /// Every key with its value and origin, as YAML.
    pub config: String,
    /// The model, as it was named.
    pub model: String,
    /// Family of the model.
    pub family: String,
    /// The name of the objective.
    pub task: &'static str,
    /// Labels of the head.
    pub labels: Vec<String>,
    /// Training data.
    pub train: DataSummary,
    /// Sources that are mixed by weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixture: Vec<MixedSource>,
    /// Evaluation data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval: Option<DataSummary>,
    /// Adapted layers.
    pub adapted_layers: usize,
    /// Optimiser steps per epoch.
    pub steps_per_epoch: usize,
    /// Optimiser steps in total.
    pub total_steps: usize,
    /// Estimated peak memory.
    pub memory: MemoryEstimate,
    /// Free memory in bytes; absent where the system does not report it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Number type of products with frozen weights: `bfloat16` or `float32`.
    pub compute_dtype: &'static str,
    /// Kernel or device that computes them: `amx`, `avx512-bf16`, `f32` or `cuda`.
    pub kernel: &'static str,
    /// The first training example as the model sees it.
    pub example: Vec<PreviewSpan>,
    /// The error that would stop the run, if any, and what is likely wrong with the data.
    pub warnings: Vec<String>,
    /// The target of a head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// A source in a mixture.
#[derive(Debug, Clone, Serialize)]
pub struct MixedSource {
    /// Its path.
    pub name: String,
    /// Its examples.
    pub examples: usize,
    /// Its weight.
    pub weight: f64,
    /// Examples, or packs, that an epoch takes of it.
    pub per_epoch: usize,
    /// Its share of an epoch.
    pub share: f64,
}

/// Counts over a data set.
#[derive(Debug, Clone, Serialize)]
pub struct DataSummary {
    /// Examples.
    pub examples: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that the loss counts (examples, for heads).
    pub counted: usize,
    /// Examples truncated at `max_length`.
    pub truncated: usize,
    /// Records left out because nothing in them counts.
    pub dropped: usize,
    /// Longest example in tokens.
    pub longest: usize,
    /// Longest allowed.
    pub max_length: usize,
}

impl DataSummary {
    fn new(set: &Dataset) -> DataSummary {
        let PrepareReport { examples, tokens, mut counted, truncated, dropped, longest } = set.report;
        if set.objective.over_answers() {
            counted = set.examples.iter().flat_map(|e| &e.sequences).map(Sequence::counted).sum();
        }
        DataSummary { examples, tokens, counted, truncated, dropped, longest, max_length: set.max_length }
    }
}

/// A piece of a rendered example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PreviewSpan {
    /// Text, special tokens included.
    pub text: String,
    /// True when the loss counts it.
    pub counted: bool,
    /// The sequence of the example that it is of, from 0.
    #[serde(skip_serializing_if = "is_first")]
    pub sequence: usize,
}

fn is_first(sequence: &usize) -> bool {
    *sequence == 0
}

fn mixture(data: &Data) -> Vec<MixedSource> {
    let counts = data.order.mixture().map_or(&[][..], |m| m.counts());
    let total = counts.iter().sum::<usize>().max(1);
    let sources = data.train.sources.iter().zip(counts);
    let row = |(source, &per_epoch): (&Source, &usize)| MixedSource {
        name: source.name.clone(),
        examples: source.examples,
        weight: source.weight,
        per_epoch,
        share: per_epoch as f64 / total as f64,
    };
    sources.map(row).collect()
}

pub(super) fn preview(config: &TrainConfig, world: usize, observer: &mut dyn Observer) -> Result<Preview> {
    let arithmetic = Arithmetic::of(config)?;
    let base = Base::of(config, observer)?;
    let mut warnings = Vec::new();
    match run_folder::look(config) {
        Ok((Begin::Ended(_), _)) => warnings.push(run_folder::ended_text(config)),
        Ok((_, notes)) => warnings.extend(notes),
        Err(e) => warnings.push(e.to_string()),
    }
    let data = read_data(config, &base, config.gradient_accumulation_steps * world, observer)?;
    warnings.extend(data_warnings(&data.train, data.eval.as_ref(), config));
    let memory = Passes::new(config, &base, data.sizes, None)?.memory;
    let adapted_layers = match config.finetuning_type {
        FinetuningType::Full => 0,
        FinetuningType::Lora => {
            plan_layers(&config.lora_config(), &target_modules(&base.checkpoint, Some(&base.config))?)?.len()
        }
    };
    let Data { train, eval, steps_per_epoch, total_steps, .. } = &data;
    let first = &train.examples[0];
    let mut spans = Vec::new();
    for (sequence, tokens) in first.sequences.iter().enumerate() {
        let rendered = train.preparer.render(tokens)?.into_iter();
        spans.extend(rendered.map(|s| PreviewSpan { text: s.text, counted: s.counted, sequence }));
    }
    let name = |c: usize| train.labels.get(c).cloned().unwrap_or_else(|| c.to_string());
    let target = first.target.as_ref().map(|t| match t {
        Target::Class(c) => name(*c),
        Target::Value(v) => v.to_string(),
        Target::Desirable(yes) => if *yes { "desirable" } else { "undesirable" }.into(),
        Target::Classes(holds) => {
            let names: Vec<String> = holds.iter().enumerate().filter(|(_, h)| **h).map(|(c, _)| name(c)).collect();
            if names.is_empty() { "none".into() } else { names.join(", ") }
        }
        Target::Tags(tags) => {
            let tags = tags.iter().filter_map(|&t| usize::try_from(t).ok());
            tags.map(name).collect::<Vec<_>>().join(" ")
        }
    });
    Ok(Preview {
        config: config.to_yaml(),
        model: base.name.clone(),
        family: base.config.family().to_string(),
        task: train.objective.name(),
        labels: train.labels.clone(),
        train: DataSummary::new(train),
        mixture: mixture(&data),
        eval: eval.as_ref().map(DataSummary::new),
        adapted_layers,
        steps_per_epoch: *steps_per_epoch,
        total_steps: *total_steps,
        memory,
        free_memory: device::free_memory(arithmetic.compute),
        compute_dtype: arithmetic.dtype(&base.checkpoint),
        kernel: arithmetic.kernel_name(&base.checkpoint),
        example: spans,
        warnings,
        target,
    })
}
