//! The weight of a linear layer in a checkpoint, whichever way round it is stored.

use crate::family::TensorNames;
use crate::{Checkpoint, Error, Result, TensorRef};
use loram_core::StoredWeight;

/// Where a layer's weight is.
pub struct LayerWeight {
    pub(crate) tensor: TensorRef,
    /// Stored as (in, out): GPT-2's `Conv1D`.
    transposed: bool,
}

impl LayerWeight {
    /// The weight (n, m) in a tensor.
    pub(crate) fn plain(tensor: TensorRef) -> LayerWeight {
        LayerWeight { tensor, transposed: false }
    }

    /// Finds the weight of a module; the weight of an output layer that is tied to the embedding is the embedding.
    pub fn find(ckpt: &Checkpoint, names: &TensorNames, path: &str) -> Result<LayerWeight> {
        let stored = |path: &str| names.stored(&format!("{path}.weight"));
        let own = stored(path);
        let tied = names.family().tied_to(path).filter(|_| !ckpt.contains(&own));
        let tensor = ckpt.tensor(&tied.map_or(own, |embedding| stored(&embedding)))?;
        Ok(LayerWeight { tensor, transposed: names.is_transposed(path) })
    }

    /// The values (outputs, inputs) in f32, row-major.
    pub(crate) fn values(&self) -> Result<Vec<f32>> {
        let values = self.tensor.to_f32()?;
        if !self.transposed {
            return Ok(values);
        }
        let (m, n) = self.tensor.dims2()?;
        Ok(transposed(&values, m, n))
    }

    /// Returns whether the weight is stored as (n, m), not transposed and not of another shape.
    pub(crate) fn is_in_order(&self, n: usize, m: usize) -> bool {
        !self.transposed && self.tensor.shape() == [n, m]
    }

    /// Works on the weight (n, m) in place; transposed weights are copied. An error when the weight has another shape.
    pub(crate) fn with<R>(&self, n: usize, m: usize, work: impl FnOnce(StoredWeight<'_>) -> R) -> Result<R> {
        let stored = if self.transposed { [m, n] } else { [n, m] };
        if self.tensor.shape() != stored {
            let what = format!("expected shape {stored:?}, found {:?}", self.tensor.shape());
            return Err(Error::Tensor { name: self.tensor.name().into(), what });
        }
        match self.transposed {
            true => Ok(work(StoredWeight::of(&self.values()?, n, m))),
            false => Ok(work(self.tensor.stored()?)),
        }
    }
}

/// The transpose (cols, rows) of a row-major matrix (rows, cols), in tiles that fit the cache.
pub(crate) fn transposed(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    const TILE: usize = 32;
    let mut out = vec![0.0; values.len()];
    for i0 in (0..rows).step_by(TILE) {
        for j0 in (0..cols).step_by(TILE) {
            for i in i0..(i0 + TILE).min(rows) {
                for j in j0..(j0 + TILE).min(cols) {
                    out[j * rows + i] = values[i * cols + j];
                }
            }
        }
    }
    out
}
