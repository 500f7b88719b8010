//! Heads: a language-model head, which computes logits in chunks of rows, and a pooled one. The loss comes from the caller.

use super::load::Loader;
use super::parts::{Embedding, Part, PartMut};
use super::pass::Backward;
use super::pooled::Pooled;
use crate::batch::Batch;
use crate::compute::Compute;
use crate::kernels::activation::Act;
use crate::linear::Linear;
use crate::loss::Loss;
use crate::ops;
use crate::param::{Params, Trainable};
use crate::products::Operand;
use crate::tensor::Tensor;
use crate::{Error, Result};
use loram_io::config::{HeadLayout, Pooling};

/// Logits that exist at a time (64 MiB in f32): the whole table of a large vocabulary never does.
const LOGITS: usize = 1 << 24;

/// The same on a GPU (128 MiB in bf16), where narrow products leave most of it idle.
const GPU_LOGITS: usize = 1 << 26;

/// Top of a model.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a model has one")]
pub(crate) enum Head {
    /// Next-token prediction.
    Lm(LmHead),
    /// Reads each sequence as one vector, or each token.
    Pooled(Pooled),
}

/// `lm_head`, whose outputs x become c·tanh(scale·x/c) with a soft cap c.
#[derive(Debug)]
pub(crate) struct LmHead {
    pub linear: Linear,
    scale: f64,
    cap: Option<f64>,
}

impl Head {
    /// Loads the head that `layout` describes. A next-token head shares the weight of `tied`, where that is given.
    pub fn load(
        layout: &HeadLayout,
        l: &Loader<'_>,
        tied: Option<&Embedding>,
        blocks: usize,
        seed: u64,
    ) -> Result<Head> {
        let out = &layout.out;
        if layout.pooling == Pooling::All {
            let linear = match tied.map(|table| &table.weight) {
                Some(Trainable::Frozen(weight)) => Linear::frozen(out.path.to_string(), weight.clone()),
                _ => l.linear(out.path.to_string(), out.n, out.m, out.bias)?.whole_on_gpu(),
            };
            return Ok(Head::Lm(LmHead { linear, scale: layout.scale, cap: layout.cap }));
        }
        Pooled::load(layout, l, blocks, seed).map(Head::Pooled)
    }

    pub fn linears(&self) -> Vec<&Linear> {
        match self {
            Head::Lm(l) => vec![&l.linear],
            Head::Pooled(p) => p.linears(),
        }
    }

    pub fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        match self {
            Head::Lm(l) => vec![Part::Linear(&mut l.linear)],
            Head::Pooled(p) => p.parts_mut(),
        }
    }

    /// Adds the loss of a batch, from the final hidden states (t, hidden), to `loss` and its gradients to the parameters'.
    /// Returns the gradient of the hidden states where [`Backward::through`] asks for it.
    pub fn loss(
        &self,
        params: &mut Params,
        hidden: &Tensor,
        batch: &Batch,
        loss: &mut dyn Loss,
        how: &Backward,
    ) -> Result<Option<Tensor>> {
        match self {
            Head::Lm(head) => head.loss(params, hidden, batch, loss, how),
            Head::Pooled(head) => head.loss(params, hidden, batch, loss, how),
        }
    }

    /// Adds the loss of a batch to `loss`. Returns the outputs of a pooled head, (sequences or tokens, outputs) row-major; none
    /// for a language model.
    pub fn evaluate(&self, params: &Params, hidden: &Tensor, batch: &Batch, loss: &mut dyn Loss) -> Result<Vec<f32>> {
        match self {
            Head::Lm(head) => {
                head.values(params, hidden, &head.counted_chunks(batch, loss, hidden.compute())?, None, loss)?;
                Ok(Vec::new())
            }
            Head::Pooled(head) => {
                let mut out = head.logits(params, head.read(hidden, batch)?);
                let logits = out.to_f32_vec();
                head.add_loss(&mut out, loss, 1.0, false)?;
                Ok(logits)
            }
        }
    }

    /// (t, vocab) for a language model, (sequences or tokens, outputs) otherwise.
    pub fn logits(&self, params: &Params, hidden: &Tensor, batch: &Batch) -> Result<Tensor> {
        match self {
            Head::Lm(head) => Ok(head.logits(params, hidden)),
            Head::Pooled(head) => Ok(head.logits(params, head.read(hidden, batch)?)),
        }
    }
}

impl LmHead {
    /// Logits (t, vocab) of final hidden states (t, hidden).
    pub fn logits(&self, params: &Params, hidden: &Tensor) -> Tensor {
        self.finish(self.linear.forward(params, &Operand::new(hidden), None).0).0
    }

    /// Scales and caps the outputs of the layer. With a cap, returns its argument too, for the backward pass.
    fn finish(&self, mut logits: Tensor) -> (Tensor, Option<Tensor>) {
        let Some(cap) = self.cap else {
            if self.scale != 1.0 {
                logits.scale(self.scale);
            }
            return (logits, None);
        };
        logits.scale(self.scale / cap);
        let mut capped = ops::act(Act::Tanh, &logits);
        capped.scale(cap);
        (capped, Some(logits))
    }

    /// The gradient of the layer's outputs out of that of the logits.
    fn finish_backward(&self, mut gradient: Tensor, argument: Option<Tensor>) -> Tensor {
        if let Some(x) = argument {
            ops::act_backward(Act::Tanh, &x, &mut gradient);
        }
        if self.scale != 1.0 {
            gradient.scale(self.scale);
        }
        gradient
    }

    /// Rows that count, in chunks small enough for their logits.
    fn counted_chunks(&self, batch: &Batch, loss: &dyn Loss, compute: Compute) -> Result<Vec<Vec<usize>>> {
        let (found, expected) = (loss.rows(), batch.tokens.len());
        if found != expected {
            let what = format!("a language model needs a label for every token: found {found}, expected {expected}");
            return Err(Error::Batch(what));
        }
        let counted: Vec<usize> = (0..expected).filter(|&i| loss.counts(i)).collect();
        let logits = if compute.on_gpu() { GPU_LOGITS } else { LOGITS };
        Ok(counted.chunks((logits / self.linear.n).clamp(16, 4096)).map(<[usize]>::to_vec).collect())
    }

    /// Shows all logits to the loss, chunk by chunk, without gradients.
    fn values(
        &self,
        params: &Params,
        hidden: &Tensor,
        chunks: &[Vec<usize>],
        step: Option<u64>,
        loss: &mut dyn Loss,
    ) -> Result<()> {
        for rows in chunks {
            let outputs = self.linear.forward(params, &Operand::new(&hidden.gather_rows(rows)), step).0;
            loss.chunk(&mut self.finish(outputs).0, rows, 1.0, false)?;
        }
        Ok(())
    }

    /// Loss over the rows that count: logits and their gradients chunk by chunk.
    fn loss(
        &self,
        params: &mut Params,
        hidden: &Tensor,
        batch: &Batch,
        loss: &mut dyn Loss,
        how: &Backward,
    ) -> Result<Option<Tensor>> {
        let mut d_hidden = how.through.then(|| Tensor::zeros(hidden.compute(), hidden.rows(), hidden.cols()));
        let step = Some(how.step);
        let chunks = self.counted_chunks(batch, loss, hidden.compute())?;
        if loss.needs_all_rows() {
            self.values(params, hidden, &chunks, step, loss)?;
        }
        for rows in &chunks {
            let x = hidden.gather_rows(rows);
            let (outputs, saved) = self.linear.forward(params, &Operand::new(&x), step);
            let (mut logits, argument) = self.finish(outputs);
            loss.chunk(&mut logits, rows, how.scale, true)?;
            let gradient = self.finish_backward(logits, argument);
            let mut dx = how.through.then(|| Tensor::scratch(x.compute(), x.rows(), x.cols()));
            let target = dx.as_mut().map(|t| (t, false));
            self.linear.backward(params, &Operand::new(&x), &saved, &Operand::new(&gradient), target, step);
            if let (Some(d), Some(dx)) = (&mut d_hidden, &dx) {
                d.add_rows(rows, dx);
            }
        }
        Ok(d_hidden)
    }
}
