//! Matrix products with a given output, over strided views.
//!
//! The arithmetic is the `gemm` crate's, called sequentially on blocks of the output. Where a side is short, the blocks
//! depend on the shapes only, because that crate has other kernels for small blocks, which sum in another order. Large
//! blocks all go the same way, element by element, so that there the number of threads may decide.

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
    let grid = Grid::new(rows, cols, depth, rs >= cs);
    let out = Shared::new(c.data);
    for_units(grid.len(), 1, |i| {
        let (r, q) = grid.block(i);
        // with fewer sixteens than parts some have nothing
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

/// Sides from which on every block goes through the packed kernels.
const WIDE: usize = 128;

/// How a side of the output of a large product may be cut.
struct Side {
    /// Width of register tiles, or a multiple: elements at the edge of a tile are rounded in another way.
    unit: usize,
    /// Least width of a part.
    least: usize,
}

/// The side along which neighbours are far apart: tiles are 4 or 6 wide.
const SLOW: Side = Side { unit: 24, least: 48 };

/// The other side, where tiles are 4 vectors of AVX-512 or 3 of others. For two of them or fewer the `gemm` crate does not
/// pack the other operand, which gives other bits too.
fn fast() -> Side {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512f") {
        return Side { unit: 64, least: 192 };
    }
    Side { unit: 48, least: 144 }
}

/// The cut of an output into blocks.
struct Grid {
    rows: Cut,
    cols: Cut,
}

/// A side in `parts` that are whole multiples of `unit`; the last part takes what is left over.
struct Cut {
    n: usize,
    unit: usize,
    parts: usize,
}

impl Cut {
    fn part(&self, i: usize) -> Range<usize> {
        let units = (self.n / self.unit).max(1);
        let at = |i: usize| if i == self.parts { self.n } else { (i * units / self.parts * self.unit).min(self.n) };
        at(i)..at(i + 1)
    }
}

impl Grid {
    /// `by_rows`: the output's rows are further apart than its columns.
    fn new(rows: usize, cols: usize, depth: usize, by_rows: bool) -> Grid {
        // below ≈ 2 MFLOP (10 µs) a second thread does not pay
        let pieces = 2 * rows * cols * depth.max(1) / 4_000_000;
        if rows < WIDE || cols < WIDE {
            return Grid::by_shape(rows, cols, pieces.clamp(1, 16));
        }
        // few, since each packs its operands again
        let pieces = pieces.clamp(1, 2 * rayon::current_num_threads());
        let (high, wide) = if by_rows { (SLOW, fast()) } else { (fast(), SLOW) };
        let (mut down, mut across) = (1, 1);
        while down * across < pieces {
            let (can_down, can_across) = (rows / high.least >= 2 * down, cols / wide.least >= 2 * across);
            match (can_down, can_across) {
                (false, false) => break,
                (true, true) if rows / down > 2 * (cols / across) => down *= 2,
                (_, true) => across *= 2,
                (true, false) => down *= 2,
            }
        }
        let part = |n, side: Side, parts| Cut { n, unit: side.unit, parts };
        Grid { rows: part(rows, high, down), cols: part(cols, wide, across) }
    }

    fn by_shape(rows: usize, cols: usize, pieces: usize) -> Grid {
        let (mut down, mut across) = (1, 1);
        while down * across < pieces {
            let (h, w) = (rows / down, cols / across);
            if h < 16 && w < 16 {
                break;
            }
            if h > 2 * w { down *= 2 } else { across *= 2 }
        }
        let part = |n, parts| Cut { n, unit: 16, parts };
        Grid { rows: part(rows, down), cols: part(cols, across) }
    }

    fn len(&self) -> usize {
        if self.rows.n == 0 || self.cols.n == 0 { 0 } else { self.rows.parts * self.cols.parts }
    }

    fn block(&self, i: usize) -> (Range<usize>, Range<usize>) {
        (self.rows.part(i / self.cols.parts), self.cols.part(i % self.cols.parts))
    }
}
