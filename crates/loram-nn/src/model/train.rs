//! Passes over a batch.

use super::pass::{Backward, Pass, run};
use super::stack;
use super::transformer::Model;
use crate::batch::{Batch, EvalOut};
use crate::loss::{BatchLoss, Loss};
use crate::observe::{Observe, Watch};
use crate::tensor::Tensor;
use crate::{Result, cuda, pool};
use std::collections::BTreeMap;

impl Model {
    /// Adds d(`loss_scale`·Σ loss)/dθ of a batch to the gradients of all parameters θ. `loss_scale` is 1/(tokens or
    /// sequences that count in the whole optimiser step) for a mean; `step_seed` seeds the dropout.
    pub fn forward_backward(
        &mut self,
        batch: &Batch,
        loss: &mut dyn Loss,
        loss_scale: f64,
        step_seed: u64,
    ) -> Result<BatchLoss> {
        let compute = self.options.compute;
        let done = run(compute, || {
            self.params.begin_pass(compute);
            self.pass(batch, loss, loss_scale, step_seed)
        });
        self.params.end_pass();
        done
    }

    fn pass(&mut self, batch: &Batch, loss: &mut dyn Loss, loss_scale: f64, step_seed: u64) -> Result<BatchLoss> {
        batch.check()?;
        let positions = batch.positions();
        let pass = Pass::new(&batch.lengths, &positions, Some(step_seed));
        let (backbone, params) = (&self.backbone, &mut self.params);
        let below = backbone.embedding_trains() || params.watches_gradients();
        let (x, embedded) = backbone.embed(params, batch, &pass)?;
        let embedded = embedded.filter(|_| below);
        let checkpointing = self.options.gradient_checkpointing.then_some(stack::GROUP);
        let (x, activations) = stack::forward(backbone.blocks(), params, x, &pass, below, checkpointing);
        let (hidden, normed) = match backbone.final_norm() {
            None => (x, None),
            Some(norm) => {
                let (hidden, saved) = norm.forward(params, &x);
                (hidden, Some((norm, x, saved)))
            }
        };
        let through = !activations.is_empty() || below || normed.as_ref().is_some_and(|(norm, ..)| norm.trains());
        let how = Backward { scale: loss_scale, through, step: step_seed };
        let d_hidden = self.head.loss(params, &hidden, batch, loss, &how)?;
        drop(hidden);
        if let Some(mut d) = d_hidden {
            if let Some((norm, x, saved)) = normed {
                let mut dx = Tensor::scratch(x.compute(), x.rows(), x.cols());
                norm.backward(params, &x, &saved, &d, &mut dx, false);
                d = dx;
            }
            if let Some(dx) = stack::backward(backbone.blocks(), params, activations, d, &pass, below)
                && below
            {
                backbone.embed_backward(params, batch, embedded, dx, &pass)?;
            }
        }
        end_of_step();
        loss.take()
    }

    /// Watches linear layers until [`Model::observed`]: [`Model::observe_batch`] adds to their sums.
    pub fn observe(&mut self, what: Observe, paths: impl IntoIterator<Item = String>) {
        self.params.watch = Some(Watch::new(what, paths));
    }

    /// Runs a batch for the layers that are watched: forward for their inputs; forward and backward, with the loss times
    /// `loss_scale`, for gradients, which leaves the gradients of parameters changed. `counted` are the tokens whose
    /// inputs count for [`Observe::Covariance`]; empty: all.
    pub fn observe_batch(
        &mut self,
        batch: &Batch,
        loss: &mut dyn Loss,
        counted: &[bool],
        loss_scale: f64,
    ) -> Result<()> {
        if let Some(watch) = &mut self.params.watch {
            watch.begin(&batch.lengths, counted);
        }
        match self.params.watches_gradients() {
            true => self.forward_backward(batch, loss, loss_scale, 0).map(|_| ()),
            false => self.evaluate(batch, loss).map(|_| ()),
        }
    }

    /// Ends [`Model::observe`] and returns the sums by module path, row-major, without layers that nothing passed through.
    ///
    /// # Errors
    /// Sums that cannot be read from a GPU.
    pub fn observed(&mut self) -> Result<BTreeMap<String, Vec<f32>>> {
        let watch = self.params.watch.take();
        cuda::catch(|| Ok(watch.map(Watch::finish).unwrap_or_default()))
    }

    /// Final hidden states (t, hidden), after the last norm.
    fn hidden(&self, batch: &Batch) -> Result<Tensor> {
        batch.check()?;
        let positions = batch.positions();
        let pass = Pass::new(&batch.lengths, &positions, None);
        let (backbone, params) = (&self.backbone, &self.params);
        let (x, _) = backbone.embed(params, batch, &pass)?;
        Ok(backbone.finish(params, stack::infer(backbone.blocks(), params, x, &pass)))
    }

    /// Returns the loss of a batch and, for a pooled head, its outputs.
    pub fn evaluate(&self, batch: &Batch, loss: &mut dyn Loss) -> Result<EvalOut> {
        run(self.options.compute, || {
            let hidden = self.hidden(batch)?;
            let mut logits = self.head.evaluate(&self.params, &hidden, batch, loss)?;
            end_of_step();
            let found = loss.take()?;
            logits.extend(loss.figures());
            Ok(EvalOut { loss: found, logits })
        })
    }

    /// Outputs of the head, row-major: (tokens, vocabulary) for a language model, (sequences, outputs) otherwise.
    pub fn logits(&self, batch: &Batch) -> Result<Vec<f32>> {
        run(self.options.compute, || {
            let hidden = self.hidden(batch)?;
            Ok(self.head.logits(&self.params, &hidden, batch)?.to_f32_vec())
        })
    }
}

/// Memory that the last few steps did not need goes back to the system.
fn end_of_step() {
    cuda::end_of_step();
    pool::end_of_step();
}
