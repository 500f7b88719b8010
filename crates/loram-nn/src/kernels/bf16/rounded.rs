//! Left operands: matrices that are rounded and packed once for several products.

use super::matrix::Matrix;
use super::{BLOCK, Kernel, Line, SIDE, pack};
use crate::kernels::gemm::View;
use crate::kernels::par::{Shared, for_units};
use crate::pool::Buffer;
use std::ops::Range;

/// A matrix (rows, cols) that was rounded to bf16 and packed as the left operand of products.
#[derive(Debug)]
pub struct Rounded {
    pub(super) rows: usize,
    pub(super) cols: usize,
    data: Buffer<Line>,
}

impl Rounded {
    /// Rounds a matrix with contiguous rows.
    ///
    /// # Panics
    /// Without any [`Kernel`].
    pub fn new(x: View<'_, f32>) -> Rounded {
        let matrix = Matrix::of(x, 1.0);
        Rounded::packed(x.rows, x.cols, |rows, out| {
            // SAFETY: the rows exist, `out` has room for a panel, and a kernel is available
            unsafe { pack::rows(&matrix, rows, out) };
        })
    }

    /// Rounds the transpose of a matrix with contiguous rows.
    ///
    /// # Panics
    /// Without any [`Kernel`].
    pub fn transposed(x: View<'_, f32>) -> Rounded {
        let matrix = Matrix::of(x, 1.0);
        Rounded::packed(x.cols, x.rows, |columns, out| {
            // SAFETY: as in `new`
            unsafe { pack::rows_of_transpose(&matrix, columns, out) };
        })
    }

    /// A matrix of panels that `pack` writes, given their rows.
    fn packed(rows: usize, cols: usize, pack: impl Fn(Range<usize>, *mut u8) + Sync) -> Rounded {
        assert!(Kernel::best().is_some(), "this processor has no instructions for bf16");
        let panel = cols.div_ceil(SIDE) * BLOCK / size_of::<Line>();
        let mut data = Buffer::<Line>::new(rows.div_ceil(SIDE) * panel);
        let out = Shared::new(&mut data);
        // a panel of 576 columns takes about 4 µs
        for_units(rows.div_ceil(SIDE), 4, |i| pack(i * SIDE..((i + 1) * SIDE).min(rows), out.ptr(i * panel).cast()));
        Rounded { rows, cols, data }
    }

    /// Blocks of the inner index.
    pub(super) fn blocks(&self) -> usize {
        self.cols.div_ceil(SIDE)
    }

    /// Where a block of a panel begins.
    pub(super) fn block(&self, panel: usize, block: usize) -> *const u8 {
        let at = (panel * self.blocks() + block) * BLOCK / size_of::<Line>();
        self.data[at..].as_ptr().cast()
    }
}
