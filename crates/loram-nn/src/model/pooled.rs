//! The head for classification and regression: reads each sequence as one vector, or each token.

use super::load::{Loader, act};
use super::parts::{Norm, NormSaved, Part, PartMut};
use super::pass::Backward;
use crate::batch::Batch;
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
use crate::linear::{Linear, LinearSaved};
use crate::loss::Loss;
use crate::ops;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;
use crate::{Error, Result};
use loram_io::config::{HeadLayout, Pooling};

/// An optional layer with activation and norm, then the output layer.
#[derive(Debug)]
pub(crate) struct Pooled {
    /// On what is read (RoBERTa).
    input_dropout: Dropout,
    first: Option<First>,
    /// Before the output layer.
    dropout: Dropout,
    out: Linear,
    /// The states that are read.
    pooling: Pooling,
}

/// norm(act(linear(x))).
#[derive(Debug)]
struct First {
    linear: Linear,
    act: Act,
    /// ModernBERT's.
    norm: Option<Norm>,
}

/// Activations of a pooled head.
struct PooledSaved {
    x: Tensor,
    first: Option<FirstSaved>,
    out: LinearSaved,
}

struct FirstSaved {
    /// Before the activation function.
    z: Tensor,
    linear: LinearSaved,
    /// The input of the norm.
    normed: Option<(Tensor, NormSaved)>,
    /// The input of the output layer.
    y: Tensor,
}

impl Pooled {
    /// Loads the head that `layout` describes, on a model with so many blocks.
    pub fn load(layout: &HeadLayout, l: &Loader<'_>, blocks: usize, seed: u64) -> Result<Pooled> {
        let linear = |layer| l.head_layer(layer, seed, layout.init_std);
        // beyond the places of the blocks and of the embeddings
        let dropout = |p, index| l.dropout(p, blocks + 1, index);
        let first = match &layout.first {
            Some((layer, activation)) => {
                let norm = layout.norm.as_ref().map(|norm| l.head_norm(norm, layer.n)).transpose()?;
                Some(First { linear: linear(layer)?, act: act(*activation), norm })
            }
            None => None,
        };
        Ok(Pooled {
            input_dropout: dropout(layout.input_dropout, 0),
            first,
            dropout: dropout(layout.dropout, 1),
            out: linear(&layout.out)?,
            pooling: layout.pooling,
        })
    }

    pub fn linears(&self) -> Vec<&Linear> {
        self.first.iter().map(|f| &f.linear).chain([&self.out]).collect()
    }

    pub fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let mut parts = Vec::new();
        if let Some(first) = &mut self.first {
            parts.push(Part::Linear(&mut first.linear));
            parts.extend(first.norm.as_mut().map(Part::Norm));
        }
        parts.push(Part::Linear(&mut self.out));
        parts
    }

    /// The row of each sequence that is read.
    fn rows(&self, batch: &Batch) -> Vec<usize> {
        let mut start = 0;
        let row = |&n: &usize| {
            start += n;
            let first = start - n;
            match self.pooling {
                Pooling::Last { padding } => {
                    let tokens = &batch.tokens[first..start];
                    // of a text that is all padding the first, as in transformers
                    first + tokens.iter().rposition(|t| Some(*t) != padding).unwrap_or(0)
                }
                _ => first,
            }
        };
        batch.lengths.iter().map(row).collect()
    }

    /// The rows of the final hidden states (t, hidden) that the head reads: one for each sequence, or for each token.
    pub fn read(&self, hidden: &Tensor, batch: &Batch) -> Result<Tensor> {
        if self.pooling == Pooling::Tokens {
            return Ok(hidden.copy());
        }
        if let Some(i) = batch.lengths.iter().position(|&n| n == 0) {
            return Err(Error::Batch(format!("sequence {i} has no token to read a label from")));
        }
        Ok(match self.pooling {
            Pooling::Mean => ops::mean_rows(hidden, &batch.lengths),
            _ => hidden.gather_rows(&self.rows(batch)),
        })
    }

    /// The gradient of the final hidden states out of that of [`Self::read`].
    fn read_backward(&self, d: Tensor, batch: &Batch) -> Tensor {
        match self.pooling {
            Pooling::Tokens => d,
            Pooling::Mean => ops::mean_rows_backward(&d, &batch.lengths),
            _ => {
                let mut all = Tensor::zeros(d.compute(), batch.tokens.len(), d.cols());
                all.add_rows(&self.rows(batch), &d);
                all
            }
        }
    }

    fn forward(&self, params: &Params, x: Tensor, step: Option<u64>) -> (Tensor, PooledSaved) {
        let x = self.input_dropout.apply(x, step);
        let first = self.first.as_ref().map(|first| {
            let (z, linear) = first.linear.forward(params, &Operand::new(&x), step);
            let mut y = ops::act(first.act, &z);
            let normed = first.norm.as_ref().map(|norm| {
                let (normed, saved) = norm.forward(params, &y);
                (std::mem::replace(&mut y, normed), saved)
            });
            FirstSaved { y: self.dropout.apply(y, step), z, linear, normed }
        });
        // without a layer before it, the output layer has the dropout on what is read
        let x = if first.is_none() { self.dropout.apply(x, step) } else { x };
        let (logits, out) = self.out.forward(params, &Operand::new(first.as_ref().map_or(&x, |f| &f.y)), step);
        (logits, PooledSaved { x, first, out })
    }

    /// Outputs for what [`Self::read`] returns.
    pub fn logits(&self, params: &Params, x: Tensor) -> Tensor {
        self.forward(params, x, None).0
    }

    /// Adds the loss of outputs, a row for each sequence or token, which become its gradient times `scale` with `grad`. So few
    /// numbers are the CPU's work.
    pub fn add_loss(&self, out: &mut Tensor, loss: &mut dyn Loss, scale: f64, grad: bool) -> Result<()> {
        if out.compute().on_gpu() {
            let mut here = out.on_cpu().into_owned();
            self.add_loss(&mut here, loss, scale, grad)?;
            out.copy_from_f32(here.f32s());
            return Ok(());
        }
        let (found, expected) = (loss.rows(), out.rows());
        if found != expected {
            let unit = if self.pooling == Pooling::Tokens { "token" } else { "sequence" };
            let what = format!("this head needs a target for every {unit}: found {found}, expected {expected}");
            return Err(Error::Batch(what));
        }
        let rows: Vec<usize> = (0..expected).collect();
        if grad && loss.needs_all_rows() {
            loss.chunk(&mut out.copy(), &rows, scale, false)?;
        }
        loss.chunk(out, &rows, scale, grad)
    }

    pub fn loss(
        &self,
        params: &mut Params,
        hidden: &Tensor,
        batch: &Batch,
        loss: &mut dyn Loss,
        how: &Backward,
    ) -> Result<Option<Tensor>> {
        let step = Some(how.step);
        let (mut out, saved) = self.forward(params, self.read(hidden, batch)?, step);
        self.add_loss(&mut out, loss, how.scale, true)?;
        let mut d = Tensor::scratch(out.compute(), out.rows(), self.out.m);
        let input = saved.first.as_ref().map_or(&saved.x, |f| &f.y);
        self.out.backward(params, &Operand::new(input), &saved.out, &Operand::new(&out), Some((&mut d, false)), step);
        d = self.dropout.apply(d, step);
        if let (Some(first), Some(s)) = (&self.first, &saved.first) {
            if let (Some(norm), Some((x, stats))) = (&first.norm, &s.normed) {
                let mut dx = Tensor::scratch(d.compute(), d.rows(), d.cols());
                norm.backward(params, x, stats, &d, &mut dx, false);
                d = dx;
            }
            ops::act_backward(first.act, &s.z, &mut d);
            let mut dx = Tensor::scratch(out.compute(), out.rows(), first.linear.m);
            let operand = Operand::new(&saved.x);
            first.linear.backward(params, &operand, &s.linear, &Operand::new(&d), Some((&mut dx, false)), step);
            d = self.input_dropout.apply(dx, step);
        }
        Ok(how.through.then(|| self.read_backward(d, batch)))
    }
}
