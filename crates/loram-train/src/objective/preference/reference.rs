//! Log-probabilities under the model that preferences are compared with: the one before training.

use crate::batching::{batch_of, eval_batches};
use crate::{Error, Result};
use loram_io::data::{Example, Sequence};
use loram_nn::{LogProbabilities, Model};

/// Tokens of a pass without gradients, at most; a longer example is a pass by itself.
const MOST_TOKENS: usize = 8192;

/// Σ log p of the counted tokens of each sequence, in nats.
pub(super) fn sums(model: &Model, sequences: &[&Sequence]) -> Result<Vec<f64>> {
    let labels = sequences.iter().flat_map(|s| s.labels()).collect();
    let groups = sequences.iter().enumerate().flat_map(|(i, s)| vec![i; s.input_ids.len()]).collect();
    let mut loss = LogProbabilities::sums_alone(labels, groups, sequences.len());
    model.evaluate(&batch_of(sequences.iter().copied()), &mut loss)?;
    Ok(loss.last_sums().to_vec())
}

/// The reference of each example of a pass: what is known of it, else that of the model without its adapters.
pub(super) fn of_pass(model: &mut Model, examples: &[&Example]) -> Result<Vec<f64>> {
    if examples.iter().all(|e| e.reference.len() == e.sequences.len()) {
        return Ok(examples.iter().flat_map(|e| e.reference.iter().copied()).collect());
    }
    let sequences: Vec<&Sequence> = examples.iter().flat_map(|e| &e.sequences).collect();
    model.without_adapters(|m| sums(m, &sequences))?
}

/// Keeps with each example its log-probabilities under `model`, as the reference of later losses. `progress` gets examples done.
///
/// # Errors
/// A log-probability that is not finite; the error names the example.
pub fn add_reference(
    model: &Model,
    examples: &mut [Example],
    batch_size: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
    for range in eval_batches(&lengths, batch_size, MOST_TOKENS) {
        progress(range.start);
        let sequences: Vec<&Sequence> = examples[range.clone()].iter().flat_map(|e| &e.sequences).collect();
        let mut found = sums(model, &sequences)?.into_iter();
        for i in range {
            let n = examples[i].sequences.len();
            examples[i].reference = found.by_ref().take(n).collect();
            if let Some(x) = examples[i].reference.iter().find(|x| !x.is_finite()) {
                let what = format!("example {}: the reference model gives its answer a log-probability of {x}", i + 1);
                return Err(Error::Data(what));
            }
        }
    }
    progress(examples.len());
    Ok(())
}
