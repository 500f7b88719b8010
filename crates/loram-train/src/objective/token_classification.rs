//! Token classification: one of several labels per word, by softmax cross-entropy on the first token of each.

use super::answers::{columns, softmax};
use super::batches::{each, pooled_outputs};
use super::classification::{ACCURACY, F1, cross_entropy};
use super::column::{Column, ColumnType};
use super::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, known_labels, no_target};
use super::entities::EntityCounts;
use super::metric::Metric;
use super::settings::LossSettings;
use crate::metrics::{Metrics, argmax};
use crate::{Error, Result};
use loram_io::ModelConfig;
use loram_io::data::{DataFormat, Example, Label, Record, Target, formats};
use loram_nn::{CrossEntropy, HeadKind, Loss, Model};
use serde_json::{Map, Value};

/// Label every word, as in named-entity recognition (`token_classification`).
#[derive(Debug)]
pub struct TokenClassification;

const PRECISION: Metric = Metric::new("precision", "precision", "precision");
const RECALL: Metric = Metric::new("recall", "recall", "recall");

/// Figures of one example.
struct Tagged {
    nats: f64,
    words: u64,
    correct: u64,
    entities: EntityCounts,
}

impl TokenClassification {
    fn tags<'a>(&self, example: &'a Example) -> Result<&'a [i64]> {
        match &example.target {
            Some(Target::Tags(tags)) => Ok(tags),
            _ => Err(no_target(self)),
        }
    }

    /// Figures of each example, from outputs (tokens, labels) and the names of the labels.
    fn figures(&self, outputs: &[f32], examples: &[Example], names: &[String]) -> Result<Vec<Tagged>> {
        let n = names.len().max(1);
        let (mut rows, mut out) = (outputs.chunks_exact(n), Vec::with_capacity(examples.len()));
        for e in examples {
            let (mut predicted, mut actual, mut nats, mut correct) = (Vec::new(), Vec::new(), 0.0, 0);
            for &tag in self.tags(e)? {
                let row = rows.next().ok_or_else(|| Error::Data("fewer outputs than tokens".into()))?;
                let Ok(tag) = usize::try_from(tag) else { continue };
                let best = argmax(row);
                nats += cross_entropy(row, tag);
                correct += u64::from(best == tag);
                predicted.push(names[best].as_str());
                actual.push(names[tag].as_str());
            }
            let entities = EntityCounts::of(&predicted, &actual);
            out.push(Tagged { nats, words: actual.len() as u64, correct, entities });
        }
        Ok(out)
    }
}

impl Objective for TokenClassification {
    fn name(&self) -> &'static str {
        "token_classification"
    }

    fn aliases(&self) -> &'static [&'static str] {
        &["token_cls", "ner"]
    }

    fn takes(&self, record: &Record) -> bool {
        matches!(record.label, Some(Label::Tags(_)))
    }

    fn format(&self) -> Option<&'static dyn DataFormat> {
        Some(&formats::TokenClassification)
    }

    fn labels(&self, records: &[Record], config: &ModelConfig, source: &str) -> Result<Vec<String>> {
        let labels = known_labels(records, config, true)?;
        match labels.len() {
            0 | 1 => Err(Error::Data(format!(
                "{source}: all words have the label `{}`: there is nothing to tell apart",
                labels.join("")
            ))),
            _ => Ok(labels),
        }
    }

    fn head(&self, labels: &[String]) -> HeadKind {
        HeadKind::Tokens { outputs: labels.len() }
    }

    fn guess(&self, outputs: usize) -> Option<f64> {
        (outputs > 1).then(|| (outputs as f64).ln())
    }

    fn trained(&self, trained: &Trained<'_>) -> bool {
        matches!(trained.head(), HeadKind::Tokens { .. })
    }

    fn trained_labels(&self, trained: &Trained<'_>) -> Vec<String> {
        trained.label_names()
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        each(passes, |examples| {
            let tags = examples.iter().map(|e| self.tags(e)).collect::<Result<Vec<_>>>()?;
            Ok(Box::new(CrossEntropy::new(tags.concat())))
        })
    }

    fn prediction(&self, outputs: &[&[f32]], labels: &[String]) -> Map<String, Value> {
        let tags: Vec<Option<&String>> = outputs.iter().map(|row| labels.get(argmax(row))).collect();
        columns(tags, outputs.iter().map(|row| softmax(row)[argmax(row)]).collect::<Vec<_>>())
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, PRECISION, RECALL, F1, ACCURACY]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let figures = self.figures(found.outputs, found.examples, found.labels)?;
        let mut entities = EntityCounts::default();
        figures.iter().for_each(|f| entities.add(f.entities));
        let (words, correct) = figures.iter().fold((0, 0), |(w, c), f| (w + f.words, c + f.correct));
        let mut metrics = found.metrics();
        metrics.set(PRECISION, entities.precision());
        metrics.set(RECALL, entities.recall());
        metrics.set(F1, entities.f1());
        metrics.set(ACCURACY, correct as f64 / words.max(1) as f64);
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "tags"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[
            ("nats", ColumnType::Real),
            ("words", ColumnType::Whole),
            ("correct", ColumnType::Whole),
            ("right_entities", ColumnType::Whole),
            ("predicted_entities", ColumnType::Whole),
            ("actual_entities", ColumnType::Whole),
        ]
    }

    fn example_scores(
        &self,
        model: &mut Model,
        task: Task<'_>,
        examples: &[Example],
        batch_size: usize,
    ) -> Result<ExampleScores> {
        let figures = self.figures(&pooled_outputs(model, examples, batch_size)?, examples, task.labels)?;
        let column = |of: fn(&Tagged) -> u64| Column::Whole(figures.iter().map(of).collect());
        let columns = [
            ("nats", Column::Real(figures.iter().map(|f| f.nats).collect())),
            ("words", column(|f| f.words)),
            ("correct", column(|f| f.correct)),
            ("right_entities", column(|f| f.entities.right)),
            ("predicted_entities", column(|f| f.entities.predicted)),
            ("actual_entities", column(|f| f.entities.actual)),
        ];
        Ok(ExampleScores::of(&TokenClassification, columns))
    }

    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        let count = |name| chosen.iter().map(|&i| scores.wholes(name)[i]).sum::<u64>();
        let entities = EntityCounts {
            right: count("right_entities"),
            predicted: count("predicted_entities"),
            actual: count("actual_entities"),
        };
        Some(match metric {
            "loss" => chosen.iter().map(|&i| scores.reals("nats")[i]).sum::<f64>() / count("words") as f64,
            "accuracy" => count("correct") as f64 / count("words") as f64,
            "precision" => entities.precision(),
            "recall" => entities.recall(),
            "f1" => entities.f1(),
            _ => return None,
        })
    }
}
