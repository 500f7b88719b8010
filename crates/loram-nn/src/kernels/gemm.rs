//! Matrix products with a given output, over strided views.
//!
//! The arithmetic is the `gemm` crate's, called sequentially on blocks of the output; the blocks depend on the shapes
//! only, never on the number of threads, because that crate may sum in another order for another block shape.

use std::ops::Range;

use super::{
    Real,
    par::{Shared, for_units},
};

/// A read-only matrix: element (i, j) is `data[i·rs + j·cs]`.
#[derive(Debug, Clone, Copy)]
pub struct View<'a, T> {
    /// From element (0, 0) on.
    pub data: &'a [T],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance between rows.
    pub rs: usize,
    /// Distance between columns.
    pub cs: usize,
}

/// A matrix to write to: element (i, j) is `data[i·rs + j·cs]`, and no two elements share a place.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    /// From element (0, 0) on.
    pub data: &'a mut [T],
    /// Number of rows.
    pub rows: usize,
    /// Number of columns.
    pub cols: usize,
    /// Distance between rows.
    pub rs: usize,
    /// Distance between columns.
    pub cs: usize,
}

/// Number of elements from the first to the last one.
fn span(rows: usize, cols: usize, rs: usize, cs: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * rs + (cols - 1) * cs + 1 }
}

impl<'a, T> View<'a, T> {
    /// Row-major without gaps.
    pub fn new(data: &'a [T], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Row-major with `row_stride` elements from one row to the next.
    pub fn with_stride(data: &'a [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        let need = span(rows, cols, row_stride, 1);
        assert!(data.len() >= need, "a {rows}×{cols} view needs {need} elements, got {}", data.len());
        View { data, rows, cols, rs: row_stride, cs: 1 }
    }

    /// The transpose, in place.
    pub fn t(self) -> Self {
        View { data: self.data, rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs }
    }

    /// Some of the rows.
    pub fn row_range(self, r: Range<usize>) -> Self {
        assert!(r.start <= r.end && r.end <= self.rows, "rows {r:?} of {}", self.rows);
        View { data: &self.data[(r.start * self.rs).min(self.data.len())..], rows: r.len(), ..self }
    }

    /// Some of the columns.
    pub fn col_range(self, r: Range<usize>) -> Self {
        self.t().row_range(r).t()
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// Row-major without gaps.
    pub fn new(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        Self::with_stride(data, rows, cols, cols)
    }

    /// Row-major with `row_stride` elements from one row to the next.
    pub fn with_stride(data: &'a mut [T], rows: usize, cols: usize, row_stride: usize) -> Self {
        let need = span(rows, cols, row_stride, 1);
        assert!(data.len() >= need, "a {rows}×{cols} view needs {need} elements, got {}", data.len());
        assert!(rows < 2 || row_stride >= cols, "rows of {cols} overlap at a stride of {row_stride}");
        ViewMut { data, rows, cols, rs: row_stride, cs: 1 }
    }

    /// The transpose, in place.
    pub fn t(self) -> Self {
        ViewMut { data: self.data, rows: self.cols, cols: self.rows, rs: self.cs, cs: self.rs }
    }

    /// Some of the rows.
    pub fn row_range(self, r: Range<usize>) -> Self {
        assert!(r.start <= r.end && r.end <= self.rows, "rows {r:?} of {}", self.rows);
        let start = (r.start * self.rs).min(self.data.len());
        ViewMut { data: &mut self.data[start..], rows: r.len(), cols: self.cols, rs: self.rs, cs: self.cs }
    }

    /// Some of the columns.
    pub fn col_range(self, r: Range<usize>) -> Self {
        self.t().row_range(r).t()
    }

    /// The same view for a shorter time.
    pub fn reborrow(&mut self) -> ViewMut<'_, T> {
        ViewMut { data: self.data, rows: self.rows, cols: self.cols, rs: self.rs, cs: self.cs }
    }

    /// The same view, to read from.
    pub fn as_view(&self) -> View<'_, T> {
        View { data: self.data, rows: self.rows, cols: self.cols, rs: self.rs, cs: self.cs }
    }
}

/// One product of a sum: `alpha · a · b`.
#[derive(Debug, Clone, Copy)]
pub struct Term<'a, T> {
    /// Factor.
    pub alpha: T,
    /// Left matrix.
    pub a: View<'a, T>,
    /// Right matrix.
    pub b: View<'a, T>,
}

/// C = (accumulate ? C : 0) + alpha·A·B, on all threads.
pub fn gemm<T: Real>(c: ViewMut<'_, T>, accumulate: bool, alpha: T, a: View<'_, T>, b: View<'_, T>) {
    gemm_sum(c, accumulate, &[Term { alpha, a, b }]);
}

/// C = (accumulate ? C : 0) + alpha·A·B, on this thread.
pub fn gemm_seq<T: Real>(mut c: ViewMut<'_, T>, accumulate: bool, alpha: T, a: View<'_, T>, b: View<'_, T>) {
    check(c.rows, c.cols, &a, &b);
    let (rows, cols, rs, cs) = (c.rows, c.cols, c.rs, c.cs);
    assert!(c.data.len() >= span(rows, cols, rs, cs), "the output view is larger than its data");
    // SAFETY: the views were checked against their slices
    unsafe { block(c.reborrow().data.as_mut_ptr(), rows, cols, rs, cs, accumulate, alpha, a, b) }
}

/// C = (accumulate ? C : 0) + Σ alphaᵢ·Aᵢ·Bᵢ, on all threads: every block of C gets all its terms while it is in cache, so
/// that a low-rank term costs little more than its arithmetic.
pub fn gemm_sum<T: Real>(c: ViewMut<'_, T>, accumulate: bool, terms: &[Term<'_, T>]) {
    for t in terms {
        check(c.rows, c.cols, &t.a, &t.b);
    }
    let (rows, cols, rs, cs) = (c.rows, c.cols, c.rs, c.cs);
    assert!(c.data.len() >= span(rows, cols, rs, cs), "the output view is larger than its data");
    let depth: usize = terms.iter().map(|t| t.a.cols).sum();
    let grid = Grid::new(rows, cols, depth);
    let out = Shared::new(c.data);
    for_units(grid.len(), 1, |i| {
        let (r, q) = grid.block(i);
        // blocks are multiples of 16, so that the last ones may have nothing left
        if r.is_empty() || q.is_empty() {
            return;
        }
        let place = out.ptr(r.start * rs + q.start * cs);
        for (n, t) in terms.iter().enumerate() {
            let (a, b) = (t.a.row_range(r.clone()), t.b.col_range(q.clone()));
            // SAFETY: blocks of the grid do not overlap, and lie within the checked output
            unsafe { block(place, r.len(), q.len(), rs, cs, accumulate || n > 0, t.alpha, a, b) }
        }
        if terms.is_empty() && !accumulate {
            let nothing = View { data: &[], rows: r.len(), cols: 0, rs: 0, cs: 0 };
            // SAFETY: as above
            unsafe {
                block(
                    place,
                    r.len(),
                    q.len(),
                    rs,
                    cs,
                    false,
                    T::ONE,
                    nothing,
                    View { cols: q.len(), rows: 0, ..nothing },
                )
            }
        }
    });
}

fn check<T>(rows: usize, cols: usize, a: &View<'_, T>, b: &View<'_, T>) {
    assert!(
        a.rows == rows && b.cols == cols && a.cols == b.rows,
        "shapes do not fit: ({rows}, {cols}) from ({}, {})·({}, {})",
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    assert!(a.data.len() >= span(a.rows, a.cols, a.rs, a.cs), "the left view is larger than its data");
    assert!(b.data.len() >= span(b.rows, b.cols, b.rs, b.cs), "the right view is larger than its data");
}

/// One sequential product into `c` with the given strides.
///
/// # Safety
/// `c` must be valid and unaliased for the whole block, and the views within their slices.
#[allow(clippy::too_many_arguments)]
unsafe fn block<T: Real>(
    c: *mut T,
    rows: usize,
    cols: usize,
    rs: usize,
    cs: usize,
    accumulate: bool,
    alpha: T,
    a: View<'_, T>,
    b: View<'_, T>,
) {
    if rows == 0 || cols == 0 || (a.cols == 0 && accumulate) {
        return;
    }
    // SAFETY: the caller's promise
    unsafe {
        gemm::gemm(
            rows,
            cols,
            a.cols,
            c,
            cs as isize,
            rs as isize,
            accumulate,
            a.data.as_ptr(),
            a.cs as isize,
            a.rs as isize,
            b.data.as_ptr(),
            b.cs as isize,
            b.rs as isize,
            T::ONE,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The cut of an output into blocks, from its shape only.
struct Grid {
    rows: usize,
    cols: usize,
    down: usize,
    across: usize,
}

impl Grid {
    fn new(rows: usize, cols: usize, depth: usize) -> Grid {
        // below ≈ 2 MFLOP (10 µs) a second thread does not pay
        let work = 2 * rows * cols * depth.max(1);
        let pieces = (work / 4_000_000).clamp(1, 16);
        let (mut down, mut across) = (1, 1);
        while down * across < pieces {
            let (h, w) = (rows / down, cols / across);
            if h < 16 && w < 16 {
                break;
            }
            if h > 2 * w { down *= 2 } else { across *= 2 }
        }
        Grid { rows, cols, down, across }
    }

    fn len(&self) -> usize {
        if self.rows == 0 || self.cols == 0 { 0 } else { self.down * self.across }
    }

    fn block(&self, i: usize) -> (Range<usize>, Range<usize>) {
        let part = |n: usize, parts: usize, i: usize| {
            let size = n.div_ceil(parts).next_multiple_of(16);
            (i * size).min(n)..((i + 1) * size).min(n)
        };
        (part(self.rows, self.down, i / self.across), part(self.cols, self.across, i % self.across))
    }
}
