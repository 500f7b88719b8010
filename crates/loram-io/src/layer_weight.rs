//! The weight of a linear layer in a checkpoint, whichever way round it is stored.

use crate::checkpoint::DType;
use crate::config::TensorNames;
use crate::{Checkpoint, Error, Result, TensorRef};
use loram_core::{Initialization, LayerInput, LayerPlan, SchemeSpec, Weight, WeightRef, initialize};

/// Where a layer's weight is.
pub(crate) struct LayerWeight {
    pub tensor: TensorRef,
    /// Stored as (in, out): GPT-2's `Conv1D`.
    transposed: bool,
}

impl LayerWeight {
    /// The weight of a module; an output layer that is tied to the embedding is the embedding.
    pub fn find(ckpt: &Checkpoint, names: &TensorNames, path: &str) -> Result<LayerWeight> {
        let stored = |path: &str| names.stored(&format!("{path}.weight"));
        let own = stored(path);
        let tied = names.family().tied_to(path).filter(|_| !ckpt.contains(&own));
        let tensor = ckpt.tensor(&tied.map_or(own, |embedding| stored(&embedding)))?;
        Ok(LayerWeight { tensor, transposed: names.is_transposed(path) })
    }

    /// The values (outputs, inputs) in f32, row-major.
    pub fn values(&self) -> Result<Vec<f32>> {
        let values = self.tensor.to_f32()?;
        if !self.transposed {
            return Ok(values);
        }
        let (m, n) = self.tensor.dims2()?;
        Ok(transposed(&values, m, n))
    }

    /// Starts the layer, from its file where one pass is all it takes, else from the values where they lie.
    pub fn start(&self, plan: &LayerPlan, scheme: &SchemeSpec, seed: u64) -> Result<Initialization> {
        let in_order = !self.transposed && self.tensor.shape() == [plan.n, plan.m];
        if scheme.one_pass()
            && in_order
            && let Some(source) = self.tensor.source()
        {
            return Ok(initialize(scheme, LayerInput::read(scheme, &source, plan, seed)?, plan, seed)?);
        }
        Ok(self.with(plan.n, plan.m, |w| initialize(scheme, w, plan, seed))??)
    }

    /// Works on the values (n, m) where they lie: they are copied only for types that cannot be read in place and for
    /// transposed weights. An error when the weight has another shape.
    pub fn with<R>(&self, n: usize, m: usize, work: impl FnOnce(Weight<'_>) -> R) -> Result<R> {
        let stored = if self.transposed { [m, n] } else { [n, m] };
        if self.tensor.shape() != stored {
            let what = format!("expected shape {stored:?}, found {:?}", self.tensor.shape());
            return Err(Error::Tensor { name: self.tensor.name().into(), what });
        }
        let copy;
        let data = match self.in_place().filter(|_| !self.transposed) {
            Some(data) => data,
            None => {
                copy = self.values()?;
                WeightRef::F32(&copy)
            }
        };
        Ok(work(Weight { data, rows: n, cols: m }))
    }

    fn in_place(&self) -> Option<WeightRef<'_>> {
        match self.tensor.dtype() {
            DType::F32 => self.tensor.as_f32().map(WeightRef::F32),
            DType::F16 => self.tensor.as_f16().map(WeightRef::F16),
            DType::BF16 => self.tensor.as_bf16().map(WeightRef::BF16),
            _ => None,
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
