//! Embedding tables.

use crate::Result;
use crate::linear::Lora;
use crate::ops;
use crate::param::{Params, Trainable};
use crate::tensor::Tensor;
use crate::trained_rows::TrainedRows;
use crate::weight::Weight;

/// A table (rows, cols) with a row for each id. With an adapter it counts as W + s·B·A − s·B₀·A₀, with B (rows, r) and
/// A (r, cols): an id looks up a row of B. PEFT's `lora_embedding_A` is Bᵀ, its `lora_embedding_B` is Aᵀ.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub path: String,
    pub weight: Trainable<Weight>,
    /// The id whose row gets no gradient where it is looked up (torch's `padding_idx`).
    pub padding: Option<u32>,
    pub lora: Option<Lora>,
    /// Single rows that are trained.
    pub rows: Option<TrainedRows>,
}

impl Embedding {
    pub fn new(path: String, weight: Trainable<Weight>, padding: Option<u32>) -> Embedding {
        Embedding { path, weight, padding, lora: None, rows: None }
    }

    /// Rows and columns.
    pub fn shape(&self, params: &Params) -> (usize, usize) {
        match &self.weight {
            Trainable::Frozen(w) => (w.rows(), w.cols()),
            Trainable::Param(id) => (params.value(*id).rows(), params.value(*id).cols()),
        }
    }

    /// out (ids × cols) = (accumulate ? out : 0) + rows of the table. An error names an id beyond the table.
    pub fn forward(&self, params: &Params, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
        match &self.weight {
            Trainable::Frozen(w) => w.gather(ids, out, accumulate)?,
            Trainable::Param(id) => ops::gather(params.value(*id), ids, out, accumulate)?,
        }
        if let Some(rows) = &self.rows {
            rows.look_up(params, ids, out)?;
        }
        if let Some(lora) = &self.lora {
            let h = look_up(lora.b.operand(params), ids, out)?;
            ops::add_assign(out, &ops::times(lora.scaling, &h, lora.a.operand(params)));
            if let Some((a0, b0)) = &lora.initial {
                ops::add_assign(out, &ops::times(-lora.scaling, &look_up(b0, ids, out)?, a0));
            }
        }
        Ok(())
    }

    /// Adds the rows of dx (ids × cols) to the gradients of what is trained.
    pub fn backward(&self, params: &mut Params, ids: &[u32], dx: &Tensor) -> Result<()> {
        if let Some(rows) = &self.rows {
            rows.look_up_backward(params, ids, self.padding, dx)?;
        }
        if let Some((lora, id)) = self.lora.as_ref().and_then(|lora| Some((lora, lora.a.param()?))) {
            let h = look_up(lora.b.operand(params), ids, dx)?;
            ops::add_t_times(params.grad_mut(id), lora.scaling, &h, dx);
        }
        let rows_train = self.weight.param().or(self.lora.as_ref().and_then(|lora| lora.b.param()));
        if rows_train.is_none() {
            return Ok(());
        }
        let kept: Vec<usize> = (0..ids.len()).filter(|&i| Some(ids[i]) != self.padding).collect();
        if kept.len() < ids.len() {
            let ids: Vec<u32> = kept.iter().map(|&i| ids[i]).collect();
            return self.rows_backward(params, &ids, &dx.gather_rows(&kept));
        }
        self.rows_backward(params, ids, dx)
    }

    /// Adds to the gradients of the rows that are looked up: of the table and of B.
    fn rows_backward(&self, params: &mut Params, ids: &[u32], dx: &Tensor) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        if let Trainable::Param(id) = self.weight {
            ops::scatter_add(dx, ids, params.grad_mut(id))?;
        }
        if let Some((lora, id)) = self.lora.as_ref().and_then(|lora| Some((lora, lora.b.param()?))) {
            let mut dh = ops::times_t(dx, lora.a.operand(params));
            dh.scale(lora.scaling);
            ops::scatter_add(&dh, ids, params.grad_mut(id))?;
        }
        Ok(())
    }

    /// Returns whether anything of the table is trained.
    pub fn trains(&self) -> bool {
        self.weight.param().is_some()
            || self.lora.as_ref().is_some_and(Lora::trains)
            || self.rows.as_ref().is_some_and(|rows| rows.value.param().is_some())
    }
}

/// Rows of B in the number type of activations like `like`.
fn look_up(b: &Tensor, ids: &[u32], like: &Tensor) -> Result<Tensor> {
    let mut h = Tensor::scratch(like.compute(), ids.len(), b.cols());
    ops::gather(b, ids, &mut h, false)?;
    Ok(h)
}
