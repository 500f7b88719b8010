//! What a model makes of every single test example, and the metrics that follow from any choice of them.

use crate::Result;
use loram_io::data::{Example, Target};
use loram_nn::{Model, Task};
use loram_train::batching::{batch, eval_batches};
use loram_train::{accuracy, f1, matthews, mse, pearson, spearman};
use serde::{Deserialize, Serialize};

/// Figures of single examples, in the order of the test data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Examples {
    /// Of a language model.
    Language {
        /// Sum of the losses of the counted tokens.
        nats: Vec<f64>,
        /// Counted tokens.
        tokens: Vec<u64>,
        /// Those that had the largest logit.
        correct: Vec<u64>,
    },
    /// Of a classifier.
    Classes {
        /// Cross-entropy.
        loss: Vec<f64>,
        /// Label found.
        predicted: Vec<usize>,
        /// Label in the data.
        actual: Vec<usize>,
        /// Number of labels.
        labels: usize,
    },
    /// Of a model that gives numbers.
    Values {
        /// Number found.
        predicted: Vec<f64>,
        /// Number in the data.
        actual: Vec<f64>,
    },
}

impl Examples {
    /// Runs the model on every example.
    pub fn of(model: &Model, examples: &[Example], batch_size: usize) -> Result<Examples> {
        match model.options().task {
            Task::CausalLm => language(model, examples),
            Task::Classification { num_labels } => {
                let logits = outputs(model, examples, batch_size)?;
                let rows: Vec<&[f32]> = logits.chunks_exact(num_labels.max(1)).collect();
                let class = |e: &Example| match e.target {
                    Some(Target::Class(c)) => c,
                    _ => 0,
                };
                let actual: Vec<usize> = examples.iter().map(class).collect();
                Ok(Examples::Classes {
                    loss: rows.iter().zip(&actual).map(|(row, &c)| cross_entropy(row, c)).collect(),
                    predicted: rows.iter().map(|row| largest(row)).collect(),
                    actual,
                    labels: num_labels,
                })
            }
            Task::Regression => {
                let value = |e: &Example| match e.target {
                    Some(Target::Value(v)) => f64::from(v),
                    _ => 0.0,
                };
                Ok(Examples::Values {
                    predicted: outputs(model, examples, batch_size)?.into_iter().map(f64::from).collect(),
                    actual: examples.iter().map(value).collect(),
                })
            }
        }
    }

    /// Number of examples.
    pub fn len(&self) -> usize {
        match self {
            Examples::Language { nats, .. } => nats.len(),
            Examples::Classes { actual, .. } => actual.len(),
            Examples::Values { actual, .. } => actual.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A metric over these examples, which may repeat; `None` where it is not defined or not one of this task.
    pub fn metric(&self, name: &str, chosen: &[usize]) -> Option<f64> {
        let pick = |v: &[f64]| chosen.iter().map(|&i| v[i]).collect::<Vec<f64>>();
        let total = |v: &[f64]| chosen.iter().map(|&i| v[i]).sum::<f64>();
        let count = |v: &[u64]| chosen.iter().map(|&i| v[i]).sum::<u64>() as f64;
        let value = match self {
            Examples::Language { nats, tokens, correct } => match name {
                "loss" => total(nats) / count(tokens),
                "perplexity" => (total(nats) / count(tokens)).exp(),
                "token_accuracy" => count(correct) / count(tokens),
                _ => return None,
            },
            Examples::Classes { loss, predicted, actual, labels } => {
                let labels_of = |v: &[usize]| chosen.iter().map(|&i| v[i]).collect::<Vec<usize>>();
                match name {
                    "loss" => total(loss) / chosen.len() as f64,
                    "accuracy" => accuracy(&labels_of(predicted), &labels_of(actual)),
                    "f1" => f1(&labels_of(predicted), &labels_of(actual), *labels),
                    "matthews_correlation" => matthews(&labels_of(predicted), &labels_of(actual)),
                    _ => return None,
                }
            }
            Examples::Values { predicted, actual } => match name {
                "loss" | "mse" => mse(&pick(predicted), &pick(actual)),
                "pearson" => pearson(&pick(predicted), &pick(actual))?,
                "spearmanr" => spearman(&pick(predicted), &pick(actual))?,
                _ => return None,
            },
        };
        value.is_finite().then_some(value)
    }

    /// A metric over all examples.
    pub fn overall(&self, name: &str) -> Option<f64> {
        self.metric(name, &(0..self.len()).collect::<Vec<_>>())
    }
}

/// One example at a time: the model gives the loss of a batch as one number.
fn language(model: &Model, examples: &[Example]) -> Result<Examples> {
    let (mut nats, mut tokens, mut correct) = (Vec::new(), Vec::new(), Vec::new());
    for e in examples {
        let loss = model.evaluate(&batch([e]))?.loss;
        nats.push(loss.loss_sum);
        tokens.push(loss.counted as u64);
        correct.push(loss.correct as u64);
    }
    Ok(Examples::Language { nats, tokens, correct })
}

fn outputs(model: &Model, examples: &[Example], batch_size: usize) -> Result<Vec<f32>> {
    let lengths: Vec<usize> = examples.iter().map(|e| e.input_ids.len()).collect();
    let mut out = Vec::new();
    for range in eval_batches(&lengths, batch_size, 8192) {
        out.extend(model.evaluate(&batch(&examples[range]))?.logits);
    }
    Ok(out)
}

fn cross_entropy(row: &[f32], class: usize) -> f64 {
    let top = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = row.iter().map(|&x| f64::from(x - top).exp()).sum();
    sum.ln() - f64::from(row[class] - top)
}

fn largest(row: &[f32]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_is_that_of_sklearn() {
        let file: serde_json::Value = serde_json::from_str(include_str!("../tests/reference/statistics.json")).unwrap();
        for case in file["cross_entropy"].as_array().unwrap() {
            let row: Vec<f32> = case["logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect();
            let found = cross_entropy(&row, case["class"].as_u64().unwrap() as usize);
            let expected = case["loss"].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-6, "{found}, expected {expected}");
        }
        assert_eq!(largest(&[1.0, 3.0, 3.0]), 1);
    }
}
