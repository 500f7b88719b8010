//! Batches of examples for a model: inputs with their loss, and the outputs of a head.

use super::definition::{Pass, Task};
use crate::batching::{batch, eval_batches};
use crate::{Error, Result};
use loram_io::data::Example;
use loram_nn::{Batch, Loss, Model};

/// Largest number of tokens in a batch when single examples are scored.
const SCORE_TOKENS: usize = 8192;

/// The inputs of examples and the loss with their targets.
pub fn batch_and_loss<'a>(
    task: Task<'_>,
    model: &mut Model,
    examples: impl IntoIterator<Item = &'a Example>,
) -> Result<(Batch, Box<dyn Loss>)> {
    let mut made = batches_and_losses(task, model, [examples.into_iter().collect()])?;
    made.pop().ok_or_else(|| Error::Data("a batch without examples".into()))
}

/// The same for the forward passes of one batch.
pub fn batches_and_losses<'a>(
    task: Task<'_>,
    model: &mut Model,
    passes: impl IntoIterator<Item = Vec<&'a Example>>,
) -> Result<Vec<(Batch, Box<dyn Loss>)>> {
    let pass = |examples: Vec<&'a Example>| Pass { batch: batch(examples.iter().copied()), examples };
    let passes: Vec<Pass<'_>> = passes.into_iter().map(pass).collect();
    let losses = task.objective.losses(model, &passes, task.settings)?;
    Ok(passes.into_iter().map(|p| p.batch).zip(losses).collect())
}

/// A loss for each pass that depends on its own examples alone.
pub(super) fn each(
    passes: &[Pass<'_>],
    loss: impl Fn(&[&Example]) -> Result<Box<dyn Loss>>,
) -> Result<Vec<Box<dyn Loss>>> {
    passes.iter().map(|p| loss(&p.examples)).collect()
}

/// The figures that the loss gives of all examples.
pub(super) fn figures(model: &mut Model, task: Task<'_>, examples: &[Example], batch_size: usize) -> Result<Vec<f32>> {
    let lengths: Vec<usize> = examples.iter().map(Example::tokens).collect();
    let mut out = Vec::new();
    for range in eval_batches(&lengths, batch_size, SCORE_TOKENS) {
        let (batch, mut loss) = batch_and_loss(task, model, &examples[range])?;
        out.extend(model.evaluate(&batch, &mut *loss)?.logits);
    }
    Ok(out)
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
