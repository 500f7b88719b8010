//! Embedding tables.

use crate::Result;
use crate::ops;
use crate::param::{Params, Trainable};
use crate::tensor::Tensor;
use crate::weight::Weight;

/// A table with a row for each id.
#[derive(Debug)]
pub(crate) struct Embedding {
    pub path: String,
    pub weight: Trainable<Weight>,
}

impl Embedding {
    /// out (ids × cols) = (accumulate ? out : 0) + rows of the table. An error names an id beyond the table.
    pub fn forward(&self, params: &Params, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
        match &self.weight {
            Trainable::Frozen(w) => w.gather(ids, out, accumulate),
            Trainable::Param(id) => ops::gather(params.value(*id), ids, out, accumulate),
        }
    }

    /// Adds the rows of dx to the gradient of the table, when it is trained.
    pub fn backward(&self, params: &mut Params, ids: &[u32], dx: &Tensor) -> Result<()> {
        match self.weight {
            Trainable::Frozen(_) => Ok(()),
            Trainable::Param(id) => ops::scatter_add(dx, ids, params.grad_mut(id)),
        }
    }

    /// Returns whether the table is trained.
    pub fn trains(&self) -> bool {
        matches!(self.weight, Trainable::Param(_))
    }
}
