//! Matrix products, and changes of the number type on the way into them.

use super::call::{Grid, Product};
use super::device::{driver, ok};
use super::launch::launch;
use super::memory::{PIECE, upload_f32};
use super::packed::Packed;
use super::profile::span;
use crate::compute::Compute;
use crate::held::Held;
use crate::tensor::Tensor;
use loram_core::{BFloat16, Float32, RowOrder, StoredWeight, WeightFormat};
use std::sync::{Arc, OnceLock};

/// A matrix in a product, as it lies or transposed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    tensor: &'a Tensor,
    columns: usize,
    transposed: bool,
}

impl<'a> Side<'a> {
    pub fn of(tensor: &'a Tensor) -> Side<'a> {
        Side { tensor, columns: tensor.cols(), transposed: false }
    }

    pub fn t(tensor: &'a Tensor) -> Side<'a> {
        Side { tensor, columns: tensor.cols(), transposed: true }
    }

    /// The first columns of the tensor, as it lies.
    pub fn columns(self, columns: usize) -> Side<'a> {
        assert!(columns <= self.tensor.cols(), "a tensor has {} columns, not {columns}", self.tensor.cols());
        Side { columns, ..self }
    }

    fn shape(&self) -> (usize, usize) {
        match self.transposed {
            false => (self.tensor.rows(), self.columns),
            true => (self.columns, self.tensor.rows()),
        }
    }
}

/// The tensor in another number type, or itself.
pub(crate) fn cast(x: &Tensor, compute: Compute) -> Held<'_> {
    if x.compute() == compute {
        return Held::Borrowed(x);
    }
    let out = Tensor::scratch(compute, x.rows(), x.cols());
    let name = if compute == Compute::CudaBf16 { "cast_f32" } else { "cast_bf16" };
    launch!(name, Grid::eights(x.len()); x.address(), out.address(), x.len() as i64);
    Held::Owned(out)
}

/// c = (accumulate ? c : 0) + alpha·a·b. Where the sides differ in type, the narrower decides: parameters in f32 are
/// rounded on their way into a product with activations.
pub(crate) fn product(c: &mut Tensor, accumulate: bool, alpha: f64, a: Side<'_>, b: Side<'_>) {
    let ((m, k), (k2, n)) = (a.shape(), b.shape());
    assert!(
        k == k2 && (c.rows(), c.cols()) == (m, n),
        "shapes do not fit: ({}, {}) from ({m}, {k})·({k2}, {n})",
        c.rows(),
        c.cols()
    );
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill_zero();
        }
        return;
    }
    let input = match a.tensor.compute() == b.tensor.compute() {
        true => a.tensor.compute(),
        false => Compute::CudaBf16,
    };
    let (ta, tb) = (cast(a.tensor, input), cast(b.tensor, input));
    let p = Product {
        m,
        n,
        k,
        alpha: alpha as f32,
        beta: f32::from(accumulate),
        a: ta.address(),
        a_pitch: a.tensor.cols(),
        a_transposed: a.transposed,
        b: tb.address(),
        b_pitch: b.tensor.cols(),
        b_transposed: b.transposed,
        c: c.address(),
        input,
        output: c.compute(),
    };
    span(|| format!("product {m}×{n}×{k} {input:?} to {:?}", p.output), || ok(driver().product(&p)));
}

/// A frozen weight in the GPU's memory, in the number type of the activations.
pub(crate) fn upload_weight(w: StoredWeight<'_>, compute: Compute) -> Tensor {
    let out = Tensor::scratch(compute, w.rows(), w.cols());
    let as_stored = if compute == Compute::CudaBf16 { BFloat16.name() } else { Float32.name() };
    if w.format().name() == as_stored && w.order() == RowOrder::Plain {
        out.buffer().upload(w.bytes());
        return out;
    }
    let mut piece = Vec::new();
    for start in (0..w.len()).step_by(PIECE) {
        piece.resize(PIECE.min(w.len() - start), 0.0);
        w.read(start..start + piece.len(), &mut piece);
        upload_f32(out.buffer(), start, &piece);
    }
    out
}

/// A frozen weight in the GPU's memory.
#[derive(Debug)]
pub(crate) enum OnGpu {
    /// In the number type of the activations.
    Whole(Tensor),
    /// As it is stored.
    Packed(Packed),
}

/// A weight in the GPU's memory, shared by all clones of it.
pub(crate) type Resident = Arc<OnceLock<OnGpu>>;
