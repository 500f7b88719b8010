//! Classification: one of several labels per text, by softmax cross-entropy.

use super::answers::{columns, softmax};
use super::batches::{each, pooled_outputs};
use super::column::{Column, ColumnType};
use super::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, known_labels, no_target};
use super::metric::Metric;
use super::settings::LossSettings;
use crate::metrics::{Metrics, accuracy, argmax, f1, matthews};
use crate::{Error, Result};
use loram_io::ModelConfig;
use loram_io::data::{Example, Label, Record, Target};
use loram_nn::{CrossEntropy, HeadKind, Loss, Model};
use serde_json::{Map, Value};

/// Choose one of several labels (`classification`).
#[derive(Debug)]
pub struct Classification;

pub(super) const ACCURACY: Metric = Metric { percent: true, ..Metric::new("accuracy", "accuracy", "accuracy") };
pub(super) const F1: Metric = Metric::new("f1", "F1", "F1");
const MATTHEWS: Metric = Metric::new("matthews_correlation", "Matthews correlation", "Matthews");

impl Classification {
    /// Scores of single examples: cross-entropy, the label predicted and the label in the data, of `labels` labels.
    pub fn scores(loss: Vec<f64>, predicted: Vec<usize>, actual: Vec<usize>, labels: usize) -> ExampleScores {
        let columns = [
            ("loss", Column::Real(loss)),
            ("predicted", Column::of_indices(&predicted)),
            ("actual", Column::of_indices(&actual)),
            ("labels", Column::Single(labels as u64)),
        ];
        ExampleScores::of(&Classification, columns)
    }

    fn class(&self, example: &Example) -> Result<usize> {
        match example.target {
            Some(Target::Class(c)) => Ok(c),
            _ => Err(no_target(self)),
        }
    }

    fn classes(&self, examples: &[Example]) -> Result<Vec<usize>> {
        examples.iter().map(|e| self.class(e)).collect()
    }
}

impl Objective for Classification {
    fn name(&self) -> &'static str {
        "classification"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["seq_cls"]
    }

    fn takes(&self, record: &Record) -> bool {
        record.texts.len() == 1 && matches!(record.label, Some(Label::Name(_) | Label::Id(_)))
    }

    fn labels(&self, records: &[Record], config: &ModelConfig, source: &str) -> Result<Vec<String>> {
        let labels = known_labels(records, config, false)?;
        if labels.len() < 2 && config.trained_head().is_none() {
            return Err(Error::Data(format!(
                "{source}: all records have the label `{}`: there is nothing to tell apart",
                labels.join("")
            )));
        }
        Ok(labels)
    }

    fn head(&self, labels: &[String]) -> HeadKind {
        HeadKind::Pooled { outputs: labels.len() }
    }

    fn guess(&self, outputs: usize) -> Option<f64> {
        (outputs > 1).then(|| (outputs as f64).ln())
    }

    fn trained(&self, trained: &Trained<'_>) -> bool {
        trained.is_pooled()
    }

    fn trained_labels(&self, trained: &Trained<'_>) -> Vec<String> {
        trained.label_names()
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        each(passes, |examples| {
            let labels: Result<Vec<i64>> = examples.iter().map(|e| Ok(self.class(e)? as i64)).collect();
            Ok(Box::new(CrossEntropy::new(labels?)))
        })
    }

    fn prediction(&self, outputs: &[&[f32]], labels: &[String]) -> Map<String, Value> {
        let Some(row) = outputs.first() else { return Map::new() };
        let probabilities = labels.iter().cloned().zip(softmax(row).into_iter().map(Value::from));
        columns(labels.get(argmax(row)).cloned(), probabilities.collect::<Map<_, _>>())
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, ACCURACY, F1, MATTHEWS]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let actual = self.classes(found.examples)?;
        let labels = found.outputs.len() / actual.len().max(1);
        let predicted: Vec<usize> = found.outputs.chunks_exact(labels.max(1)).map(argmax).collect();
        let mut metrics = found.metrics();
        metrics.set(ACCURACY, accuracy(&predicted, &actual));
        metrics.set(F1, f1(&predicted, &actual, labels));
        metrics.set(MATTHEWS, matthews(&predicted, &actual));
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "classes"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[
            ("loss", ColumnType::Real),
            ("predicted", ColumnType::Whole),
            ("actual", ColumnType::Whole),
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
        let actual = self.classes(examples)?;
        let loss = rows.iter().zip(&actual).map(|(row, &c)| cross_entropy(row, c)).collect();
        Ok(Classification::scores(loss, rows.iter().map(|row| argmax(row)).collect(), actual, labels))
    }

    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        let of = |name| chosen.iter().map(|&i| scores.wholes(name)[i] as usize).collect::<Vec<usize>>();
        Some(match metric {
            "loss" => chosen.iter().map(|&i| scores.reals("loss")[i]).sum::<f64>() / chosen.len() as f64,
            "accuracy" => accuracy(&of("predicted"), &of("actual")),
            "f1" => f1(&of("predicted"), &of("actual"), scores.single("labels") as usize),
            "matthews_correlation" => matthews(&of("predicted"), &of("actual")),
            _ => return None,
        })
    }
}

/// −log softmax(row)\[class\].
pub(super) fn cross_entropy(row: &[f32], class: usize) -> f64 {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
    sum.ln() - f64::from(row[class] - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_that_of_sklearn() {
        let text = include_str!("../../../loram-lab/tests/reference/statistics.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        for case in file["cross_entropy"].as_array().unwrap() {
            let row: Vec<f32> = case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
            let found = cross_entropy(&row, case["class"].as_u64().unwrap() as usize);
            let expected = case["loss"].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
    }
}
