//! Loss and metrics of a model over a data set.

use crate::batching::eval_batches;
use crate::dist::{ProcessGroup, deal};
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
    evaluate_in(&ProcessGroup::default(), model, task, examples, options, progress)
}

/// The same over the ranks of a group, which all receive the same metrics. Batches are dealt out and their figures are added in
/// the order of the data, so that no figure depends on the number of ranks.
pub fn evaluate_in(
    group: &ProcessGroup,
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
    let ranges = eval_batches(&lengths, options.batch_size, options.max_tokens);
    let sizes: Vec<usize> = ranges.iter().map(|r| lengths[r.clone()].iter().sum()).collect();
    let ranks = deal(&sizes, group.world());
    let mut mine = Vec::new();
    for (range, _) in ranges.iter().zip(&ranks).filter(|x| *x.1 == group.rank()) {
        progress(range.start, examples.len());
        let (batch, mut targets) = batch_and_loss(task, model, &examples[range.clone()])?;
        let out = model.evaluate(&batch, &mut *targets)?;
        mine.push(Part { loss: out.loss, outputs: out.logits });
    }
    progress(examples.len(), examples.len());
    let mut all = match group.is_solo() {
        true => vec![mine.into_iter()],
        false => group.gather(&write_parts(&mine))?.iter().map(|b| read_parts(b).into_iter()).collect(),
    };
    let mut loss = BatchLoss::default();
    let mut outputs: Vec<f32> = Vec::new();
    for rank in ranks {
        let part = all[rank].next().ok_or_else(|| Error::Data(format!("{} lacks a batch", group.name(rank))))?;
        loss.add(part.loss);
        outputs.extend(part.outputs);
    }
    task.objective.evaluate(&Evaluation { loss, outputs: &outputs, examples, labels: task.labels })
}

/// Figures of a batch.
struct Part {
    loss: BatchLoss,
    /// Outputs of a pooled head, row-major.
    outputs: Vec<f32>,
}

fn write_parts(parts: &[Part]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for p in parts {
        let BatchLoss { loss_sum, counted, correct } = p.loss;
        for word in [loss_sum.to_bits(), counted as u64, correct as u64, p.outputs.len() as u64] {
            bytes.extend(word.to_le_bytes());
        }
        p.outputs.iter().for_each(|x| bytes.extend(x.to_le_bytes()));
    }
    bytes
}

fn read_parts(mut bytes: &[u8]) -> Vec<Part> {
    let mut parts = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<32>() {
        let word = |i: usize| u64::from_le_bytes(std::array::from_fn(|j| head[8 * i + j]));
        let (outputs, rest) = rest.split_at_checked(4 * word(3) as usize).unwrap_or((rest, &[]));
        let outputs = outputs.chunks_exact(4).map(|b| f32::from_le_bytes(std::array::from_fn(|i| b[i]))).collect();
        let loss =
            BatchLoss { loss_sum: f64::from_bits(word(0)), counted: word(1) as usize, correct: word(2) as usize };
        parts.push(Part { loss, outputs });
        bytes = rest;
    }
    parts
}
