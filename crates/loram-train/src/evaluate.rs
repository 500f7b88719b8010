//! Loss and metrics of a model over a data set.

use crate::batching::eval_batches;
use crate::metrics::Metrics;
use crate::objective::{Evaluation, Task, batch_and_loss};
use crate::{Error, Result};
use loram_io::data::Example;
use loram_nn::{BatchLoss, Model};

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

/// Evaluates `model` on examples that were prepared for this task. `progress` gets examples done and in all.
///
/// Language models: mean loss in nats per counted token, perplexity, token accuracy. Classification: mean cross-entropy
/// per example, accuracy, F1, Matthews correlation. Regression: mean squared error, Pearson and Spearman correlation. Multi-label
/// classification: mean binary cross-entropy, F1 (micro and macro), subset accuracy. Token classification: mean cross-entropy per
/// word, precision, recall and F1 of entities, accuracy. Preferences: the mean of their loss, rewards with their accuracy and margin,
/// log-probabilities of answers.
pub fn evaluate(
    model: &mut Model,
    task: Task<'_>,
    examples: &[Example],
    options: EvalOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Metrics> {
    if examples.is_empty() {
        return Err(Error::Data("the evaluation data hold no example".into()));
    }
    let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
    let mut loss = BatchLoss::default();
    let mut outputs: Vec<f32> = Vec::new();
    for range in eval_batches(&lengths, options.batch_size, options.max_tokens) {
        progress(range.start, examples.len());
        let (batch, mut targets) = batch_and_loss(task, model, &examples[range])?;
        let out = model.evaluate(&batch, &mut *targets)?;
        loss.add(out.loss);
        outputs.extend(out.logits);
    }
    progress(examples.len(), examples.len());
    task.objective.evaluate(&Evaluation { loss, outputs: &outputs, examples, labels: task.labels })
}
