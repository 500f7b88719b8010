//! Multi-label classification: any number of labels per text, by binary cross-entropy of each.

use super::answers::columns;
use super::batches::{each, pooled_outputs};
use super::column::{Column, ColumnType};
use super::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, known_labels, no_target};
use super::metric::Metric;
use super::settings::LossSettings;
use crate::metrics::{Metrics, SetCounts};
use crate::{Error, Result};
use loram_io::ModelConfig;
use loram_io::config::ProblemType;
use loram_io::data::{DataFormat, Example, Label, Record, Target, formats};
use loram_nn::{BinaryCrossEntropy, HeadKind, Loss, Model};
use serde_json::{Map, Value};

/// Choose any number of labels (`multi_label_classification`).
#[derive(Debug)]
pub struct MultiLabel;

const MICRO: Metric = Metric::new("f1_micro", "F1, micro", "F1 micro");
const MACRO: Metric = Metric::new("f1_macro", "F1, macro", "F1 macro");
const SUBSET: Metric = Metric { percent: true, ..Metric::new("subset_accuracy", "subset accuracy", "subset accuracy") };

/// Numbers of the labels that hold.
fn set(holds: impl IntoIterator<Item = bool>) -> Vec<u64> {
    holds.into_iter().enumerate().filter(|(_, holds)| *holds).map(|(i, _)| i as u64).collect()
}

/// The labels that outputs stand for: those with a probability above one half.
fn predicted(row: &[f32]) -> Vec<u64> {
    set(row.iter().map(|&x| x > 0.0))
}

impl MultiLabel {
    /// Scores of single examples: binary cross-entropy, the labels predicted and the labels in the data, of `labels` labels.
    pub fn scores(loss: Vec<f64>, predicted: Vec<Vec<u64>>, actual: Vec<Vec<u64>>, labels: usize) -> ExampleScores {
        let columns = [
            ("loss", Column::Real(loss)),
            ("predicted", Column::Lists(predicted)),
            ("actual", Column::Lists(actual)),
            ("labels", Column::Single(labels as u64)),
        ];
        ExampleScores::of(&MultiLabel, columns)
    }

    fn holds<'a>(&self, example: &'a Example) -> Result<&'a [bool]> {
        match &example.target {
            Some(Target::Classes(holds)) => Ok(holds),
            _ => Err(no_target(self)),
        }
    }

    fn sets(&self, examples: &[Example]) -> Result<Vec<Vec<u64>>> {
        examples.iter().map(|e| Ok(set(self.holds(e)?.iter().copied()))).collect()
    }
}

impl Objective for MultiLabel {
    fn name(&self) -> &'static str {
        "multi_label_classification"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["multi_label"]
    }

    fn problem_type(&self) -> Option<ProblemType> {
        Some(ProblemType::MultiLabel)
    }

    fn takes(&self, record: &Record) -> bool {
        record.texts.len() == 1 && matches!(record.label, Some(Label::Several(_) | Label::Flags(_)))
    }

    fn format(&self) -> Option<&'static dyn DataFormat> {
        Some(&formats::MultiLabel)
    }

    fn labels(&self, records: &[Record], config: &ModelConfig, source: &str) -> Result<Vec<String>> {
        let labels = known_labels(records, config, false)?;
        match labels.is_empty() {
            true => Err(Error::Data(format!("{source}: no record has a label: there is nothing to learn"))),
            false => Ok(labels),
        }
    }

    fn head(&self, labels: &[String]) -> HeadKind {
        HeadKind::Pooled { outputs: labels.len() }
    }

    fn guess(&self, _: usize) -> Option<f64> {
        Some(std::f64::consts::LN_2)
    }

    fn trained(&self, trained: &Trained<'_>) -> bool {
        trained.is_pooled() && trained.problem_type == Some(ProblemType::MultiLabel)
    }

    fn trained_labels(&self, trained: &Trained<'_>) -> Vec<String> {
        trained.label_names()
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        each(passes, |examples| {
            let rows = examples.iter().map(|e| self.holds(e)).collect::<Result<Vec<_>>>()?;
            let outputs = rows.first().map_or(0, |row| row.len());
            Ok(Box::new(BinaryCrossEntropy::new(rows.concat(), outputs)))
        })
    }

    fn prediction(&self, outputs: &[&[f32]], labels: &[String]) -> Map<String, Value> {
        let Some(row) = outputs.first() else { return Map::new() };
        let holds: Vec<&String> = predicted(row).iter().filter_map(|&i| labels.get(i as usize)).collect();
        let probabilities = row.iter().map(|&x| Value::from(1.0 / (1.0 + (-f64::from(x)).exp())));
        columns(holds, labels.iter().cloned().zip(probabilities).collect::<Map<_, _>>())
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, MICRO, MACRO, SUBSET]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let actual = self.sets(found.examples)?;
        let labels = found.outputs.len() / actual.len().max(1);
        let predicted: Vec<Vec<u64>> = found.outputs.chunks_exact(labels.max(1)).map(predicted).collect();
        let counts = SetCounts::of(predicted.iter().zip(&actual), labels);
        let mut metrics = found.metrics();
        metrics.set(MICRO, counts.f1_micro());
        metrics.set(MACRO, counts.f1_macro());
        metrics.set(SUBSET, counts.subset_accuracy());
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "label_sets"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[
            ("loss", ColumnType::Real),
            ("predicted", ColumnType::Lists),
            ("actual", ColumnType::Lists),
            ("labels", ColumnType::Single),
        ]
    }

    fn example_scores(
        &self,
        model: &mut Model,
        _: Task<'_>,
        examples: &[Example],
        batch_size: usize,
    ) -> Result<ExampleScores> {
        let logits = pooled_outputs(model, examples, batch_size)?;
        let labels = logits.len() / examples.len().max(1);
        let rows: Vec<&[f32]> = logits.chunks_exact(labels.max(1)).collect();
        let mut loss = Vec::with_capacity(rows.len());
        for (row, e) in rows.iter().zip(examples) {
            let nats = row.iter().zip(self.holds(e)?).map(|(&x, &holds)| {
                let x = f64::from(if holds { -x } else { x });
                x.max(0.0) + (-x.abs()).exp().ln_1p()
            });
            loss.push(nats.sum::<f64>() / labels as f64);
        }
        let predicted = rows.iter().map(|row| predicted(row)).collect();
        Ok(MultiLabel::scores(loss, predicted, self.sets(examples)?, labels))
    }

    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        if metric == "loss" {
            return Some(chosen.iter().map(|&i| scores.reals("loss")[i]).sum::<f64>() / chosen.len() as f64);
        }
        let (predicted, actual) = (scores.lists("predicted"), scores.lists("actual"));
        let counts =
            SetCounts::of(chosen.iter().map(|&i| (&predicted[i], &actual[i])), scores.single("labels") as usize);
        Some(match metric {
            "f1_micro" => counts.f1_micro(),
            "f1_macro" => counts.f1_macro(),
            "subset_accuracy" => counts.subset_accuracy(),
            _ => return None,
        })
    }
}
