//! Rows by number: embeddings, and the positions that count.

use super::call::Grid;
use super::launch::launch;
use super::memory::Buffer;
use super::ops::{flag, named};
use crate::compute::Compute;
use crate::tensor::Tensor;

/// Rows of a table, or of activations, into `out`; ids were checked.
pub(crate) fn gather(table: &Tensor, ids: &[u32], out: &mut Tensor, accumulate: bool) {
    let name = match (table.compute(), out.compute()) {
        (Compute::CudaF32, Compute::CudaBf16) => "gather_f32_bf16".to_string(),
        _ => named("gather", out),
    };
    let index = Buffer::of_numbers(ids);
    launch!(
        name, Grid::rows(ids.len(), table.cols());
        table.address(), index.address(), out.address(), flag(accumulate), table.cols() as i32
    );
}

/// Rows `index` of y += rows of x; no number twice.
pub(crate) fn add_rows(y: &mut Tensor, index: &[u32], x: &Tensor) {
    let ids = Buffer::of_numbers(index);
    launch!(named("add_rows", x), Grid::rows(index.len(), x.cols()); y.address(), ids.address(), x.address(), x.cols() as i32);
}

/// dtable\[ids\[i\]\] += row i of dy; numbers may come twice.
pub(crate) fn scatter_add(dy: &Tensor, ids: &[u32], dtable: &mut Tensor) {
    let (index, cols) = (Buffer::of_numbers(ids), dy.cols());
    launch!(
        named("scatter_add", dy), Grid::elements(cols);
        dy.address(), index.address(), dtable.address(), ids.len() as i32, cols as i32
    );
}
