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

/// Columns `index` of x into y.
pub(crate) fn gather_columns(x: &Tensor, index: &[u32], y: &mut Tensor) {
    columns("gather_columns", x, index, y);
}

/// Columns `index` of y += columns of x; no number twice.
pub(crate) fn add_columns(y: &mut Tensor, index: &[u32], x: &Tensor) {
    columns("add_columns", y, index, x);
}

/// Columns of y from `to` on ← `width` columns of x from `from` on.
pub(crate) fn copy_columns(x: &Tensor, from: usize, y: &mut Tensor, to: usize, width: usize) {
    assert!(from + width <= x.cols() && to + width <= y.cols(), "columns beyond the matrix");
    launch!(
        named("copy_columns", x), Grid::rows(x.rows(), width);
        x.address(), x.cols() as i32, from as i32, y.address(), y.cols() as i32, to as i32, width as i32
    );
}

/// Row s of y is the mean of the rows of sequence s of x.
pub(crate) fn mean_rows(x: &Tensor, lengths: &[usize], y: &mut Tensor) {
    let ends = ends(lengths, x.rows());
    launch!(named("mean_rows", x), Grid::rows(lengths.len(), x.cols()); x.address(), ends.address(), y.address(), x.cols() as i32);
}

/// The rows of sequence s of dx are row s of dy, divided by their number.
pub(crate) fn mean_rows_backward(dy: &Tensor, lengths: &[usize], dx: &mut Tensor) {
    let (ends, cols) = (ends(lengths, dx.rows()), dy.cols() as i32);
    launch!(
        named("mean_rows_backward", dy), Grid::rows(lengths.len(), dy.cols());
        dy.address(), ends.address(), dx.address(), cols
    );
}

/// The number of the row after the last one of each sequence.
fn ends(lengths: &[usize], rows: usize) -> Buffer {
    let mut end = 0;
    let ends: Vec<u32> = lengths
        .iter()
        .map(|&n| {
            end += n;
            end as u32
        })
        .collect();
    assert_eq!(end, rows, "rows of all sequences");
    Buffer::of_numbers(&ends)
}

/// One of the two kernels between a wide matrix and the columns `index` of it.
fn columns(name: &str, wide: &Tensor, index: &[u32], narrow: &Tensor) {
    assert!(index.iter().all(|&i| (i as usize) < wide.cols()), "columns beyond the matrix");
    let ids = Buffer::of_numbers(index);
    launch!(
        named(name, wide), Grid::rows(wide.rows(), index.len());
        wide.address(), ids.address(), narrow.address(), wide.cols() as i32, index.len() as i32
    );
}

/// dtable\[ids\[i\]\] += row i of dy; numbers may come twice.
pub(crate) fn scatter_add(dy: &Tensor, ids: &[u32], dtable: &mut Tensor) {
    let (index, cols) = (Buffer::of_numbers(ids), dy.cols());
    launch!(
        named("scatter_add", dy), Grid::elements(cols);
        dy.address(), index.address(), dtable.address(), ids.len() as i32, cols as i32
    );
}
