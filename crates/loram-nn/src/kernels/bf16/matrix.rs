//! Matrices as they are stored.

use crate::kernels::gemm::View;

/// How numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// 16 bits with 8 of exponent, used as they are.
    Bf16,
    /// 16 bits with 5 of exponent, rounded to bf16.
    F16,
    /// 32 bits, multiplied by a factor and rounded to bf16.
    F32(f32),
}

impl Number {
    /// Bytes.
    pub fn size(self) -> usize {
        if let Number::F32(_) = self { 4 } else { 2 }
    }
}

/// A row-major matrix (rows, cols) of stored numbers, `stride` numbers from one row to the next.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) number: Number,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix without gaps from its little-endian bytes, which need no alignment.
    pub fn new(bytes: &'a [u8], number: Number, rows: usize, cols: usize) -> Matrix<'a> {
        let need = rows * cols * number.size();
        assert!(bytes.len() >= need, "a {rows}×{cols} matrix needs {need} bytes, got {}", bytes.len());
        Matrix { bytes, number, rows, cols, stride: cols }
    }

    /// `factor` times a matrix with contiguous rows.
    pub fn of(x: View<'a, f32>, factor: f32) -> Matrix<'a> {
        let (rows, cols, stride) = (x.rows, x.cols, x.rs);
        assert!(x.cs == 1 || cols < 2, "a matrix to be rounded has no gaps in its rows");
        let bytes = bytemuck::cast_slice(View::with_stride(x.data, rows, cols, stride).data);
        Matrix { bytes, number: Number::F32(factor), rows, cols, stride }
    }
}
