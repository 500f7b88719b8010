//! Regression: one number per text, by squared error.

use super::batches::{each, pooled_outputs};
use super::column::{Column, ColumnType};
use super::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, no_target};
use super::metric::Metric;
use super::settings::LossSettings;
use crate::Result;
use crate::metrics::{Metrics, mse, pearson, spearman};
use loram_io::config::ProblemType;
use loram_io::data::{DataFormat, Example, Label, Record, Target, formats};
use loram_nn::{HeadKind, Loss, Model, SquaredError};
use serde_json::{Map, Value};

/// Give a number (`regression`).
#[derive(Debug)]
pub struct Regression;

/// The loss itself, under the name that people look for.
const MSE: Metric = Metric { higher_is_better: false, short: None, ..Metric::new("mse", "squared error", "") };
const PEARSON: Metric = Metric::new("pearson", "Pearson correlation", "Pearson");
const SPEARMAN: Metric = Metric::new("spearmanr", "Spearman correlation", "Spearman");

impl Regression {
    /// Scores of single examples: the number predicted and the number in the data.
    pub fn scores(predicted: Vec<f64>, actual: Vec<f64>) -> ExampleScores {
        let columns = [("predicted", Column::Real(predicted)), ("actual", Column::Real(actual))];
        ExampleScores::of(&Regression, columns)
    }

    fn value(&self, example: &Example) -> Result<f32> {
        match example.target {
            Some(Target::Value(v)) => Ok(v),
            _ => Err(no_target(self)),
        }
    }

    fn values(&self, examples: &[Example]) -> Result<Vec<f64>> {
        examples.iter().map(|e| self.value(e).map(f64::from)).collect()
    }
}

impl Objective for Regression {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn takes(&self, record: &Record) -> bool {
        record.texts.len() == 1 && matches!(record.label, Some(Label::Value(_)))
    }

    /// Whole numbers are scores then, not classes.
    fn format(&self) -> Option<&'static dyn DataFormat> {
        Some(&formats::Regression)
    }

    fn head(&self, _: &[String]) -> HeadKind {
        HeadKind::Pooled { outputs: 1 }
    }

    fn trained(&self, trained: &Trained<'_>) -> bool {
        let regression = trained.config.labels().problem_type == Some(ProblemType::Regression);
        trained.is_pooled() && (trained.outputs() == 1 || regression)
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], _: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        each(passes, |examples| {
            let values: Result<Vec<f32>> = examples.iter().map(|e| self.value(e)).collect();
            Ok(Box::new(SquaredError::new(values?)))
        })
    }

    fn prediction(&self, outputs: &[&[f32]], _: &[String]) -> Map<String, Value> {
        let value = outputs.first().and_then(|row| row.first().copied());
        value.map(|x| ("prediction".to_string(), Value::from(f64::from(x)))).into_iter().collect()
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, MSE, PEARSON, SPEARMAN]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let actual = self.values(found.examples)?;
        let predicted: Vec<f64> = found.outputs.iter().map(|&x| f64::from(x)).collect();
        let mut metrics = found.metrics();
        // a correlation is absent where it is not defined
        metrics.set(PEARSON, pearson(&predicted, &actual));
        metrics.set(SPEARMAN, spearman(&predicted, &actual));
        metrics.set(MSE, mse(&predicted, &actual));
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "values"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        &[("predicted", ColumnType::Real), ("actual", ColumnType::Real)]
    }

    fn example_scores(
        &self,
        model: &mut Model,
        _: Task<'_>,
        examples: &[Example],
        batch_size: usize,
    ) -> Result<ExampleScores> {
        let predicted = pooled_outputs(model, examples, batch_size)?.into_iter().map(f64::from).collect();
        Ok(Regression::scores(predicted, self.values(examples)?))
    }

    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        let of = |name| chosen.iter().map(|&i| scores.reals(name)[i]).collect::<Vec<f64>>();
        let (predicted, actual) = (of("predicted"), of("actual"));
        match metric {
            "loss" | "mse" => Some(mse(&predicted, &actual)),
            "pearson" => pearson(&predicted, &actual),
            "spearmanr" => spearman(&predicted, &actual),
            _ => None,
        }
    }
}
