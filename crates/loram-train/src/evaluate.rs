//! Loss and metrics of a model over a data set.

use crate::batching::{batch, eval_batches};
use crate::metrics::{Metrics, accuracy, f1, matthews, mse, pearson, spearman};
use crate::{Error, Result};
use loram_io::data::{Example, Target};
use loram_nn::{BatchLoss, Model, Task};

/// How an evaluation is cut into batches. The figures do not depend on it beyond rounding.
#[derive(Debug, Clone, Copy)]
pub struct EvalOptions {
    /// Examples in a batch, at most.
    pub batch_size: usize,
    /// Tokens in a batch, at most (a longer example is a batch by itself).
    pub max_tokens: usize,
}

impl Default for EvalOptions {
    fn default() -> EvalOptions {
        EvalOptions { batch_size: 8, max_tokens: 8192 }
    }
}

/// Evaluates `model` on examples that were prepared for its task. `progress` gets examples done and in all.
///
/// Language models: mean loss in nats per counted token, perplexity, token accuracy. Classification: mean cross-entropy
/// per example, accuracy, F1, Matthews correlation. Regression: mean squared error, Pearson and Spearman correlation.
pub fn evaluate(
    model: &Model,
    examples: &[Example],
    options: EvalOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Metrics> {
    if examples.is_empty() {
        return Err(Error::Data("the evaluation data hold no example".into()));
    }
    let lengths: Vec<usize> = examples.iter().map(|e| e.input_ids.len()).collect();
    let mut loss = BatchLoss::default();
    let mut outputs: Vec<f32> = Vec::new();
    for range in eval_batches(&lengths, options.batch_size, options.max_tokens) {
        progress(range.start, examples.len());
        let out = model.evaluate(&batch(&examples[range]))?;
        loss.add(out.loss);
        outputs.extend(out.logits);
    }
    progress(examples.len(), examples.len());
    let mean = if loss.counted == 0 { 0.0 } else { loss.loss_sum / loss.counted as f64 };
    let mut metrics = Metrics { loss: mean, examples: examples.len() as u64, ..Metrics::default() };
    match model.options().task {
        Task::CausalLm => {
            if loss.counted == 0 {
                return Err(Error::Data("no token of the evaluation data counts for the loss".into()));
            }
            metrics.tokens = loss.counted as u64;
            metrics.perplexity = Some(mean.exp());
            metrics.token_accuracy = Some(loss.correct as f64 / loss.counted as f64);
        }
        task => {
            metrics.tokens = lengths.iter().sum::<usize>() as u64;
            heads(&mut metrics, task, &outputs, examples)?;
        }
    }
    Ok(metrics)
}

fn heads(metrics: &mut Metrics, task: Task, outputs: &[f32], examples: &[Example]) -> Result<()> {
    let missing = || Error::Data("an evaluation example has no label".into());
    if let Task::Classification { num_labels } = task {
        let class = |e: &Example| match e.target {
            Some(Target::Class(c)) => Ok(c),
            _ => Err(missing()),
        };
        let actual: Vec<usize> = examples.iter().map(class).collect::<Result<_>>()?;
        let predicted: Vec<usize> = outputs.chunks_exact(num_labels.max(1)).map(argmax).collect();
        metrics.accuracy = Some(accuracy(&predicted, &actual));
        metrics.f1 = Some(f1(&predicted, &actual, num_labels));
        metrics.matthews_correlation = Some(matthews(&predicted, &actual));
    } else {
        let value = |e: &Example| match e.target {
            Some(Target::Value(v)) => Ok(f64::from(v)),
            _ => Err(missing()),
        };
        let actual: Vec<f64> = examples.iter().map(value).collect::<Result<_>>()?;
        let predicted: Vec<f64> = outputs.iter().map(|&x| f64::from(x)).collect();
        metrics.pearson = pearson(&predicted, &actual);
        metrics.spearmanr = spearman(&predicted, &actual);
        metrics.mse = Some(mse(&predicted, &actual));
    }
    Ok(())
}

/// Position of the largest value, the first of equals.
pub(crate) fn argmax(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, &x) in row.iter().enumerate() {
        if x > row[best] || row[best].is_nan() {
            best = i;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_of_equals() {
        assert_eq!(super::argmax(&[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(super::argmax(&[f32::NAN, 1.0]), 1);
    }
}
