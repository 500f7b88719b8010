//! Batches of examples for a model: inputs with their loss, and the outputs of a head.

use super::definition::Objective;
use crate::Result;
use crate::batching::{batch, eval_batches};
use loram_io::data::Example;
use loram_nn::{Batch, Loss, Model};

/// Largest number of tokens in a batch when single examples are scored.
const SCORE_TOKENS: usize = 8192;

/// The inputs of examples and the loss with their targets.
pub fn batch_and_loss<'a>(
    objective: &dyn Objective,
    model: &mut Model,
    examples: impl IntoIterator<Item = &'a Example>,
) -> Result<(Batch, Box<dyn Loss>)> {
    let examples: Vec<&Example> = examples.into_iter().collect();
    let batch = batch(examples.iter().copied());
    let loss = objective.loss(model, &batch, &examples)?;
    Ok((batch, loss))
}

/// Outputs of a pooled head for all examples, (examples, outputs) row-major.
pub(super) fn pooled_outputs(model: &Model, examples: &[Example], batch_size: usize) -> Result<Vec<f32>> {
    let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
    let mut out = Vec::new();
    for range in eval_batches(&lengths, batch_size, SCORE_TOKENS) {
        out.extend(model.logits(&batch(&examples[range]))?);
    }
    Ok(out)
}
