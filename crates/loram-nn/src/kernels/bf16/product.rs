//! The blocks of a product, on all threads.

use super::matrix::Matrix;
use super::rounded::Rounded;
use super::{BLOCK, Kernel, Line, Panels, SIDE, Tile, Tiles, pack};
use crate::kernels::gemm::{View, ViewMut, gemm_sum};
use crate::kernels::par::{Shared, for_units, with_scratch};
use crate::pool::Buffer;
use loram_core::StoredWeight;
use std::ops::Range;

/// Packed bytes of a right operand at a time: those of a large one do not stay in the caches of the cores until they are used.
const PACKED: usize = 4 << 20;

/// Panels of columns that are packed at a time.
const PANELS: usize = 64;

/// Blocks of the inner index between two visits to an output: two panels of so many blocks stay near a core.
const DEPTH: usize = 18;

/// Blocks of the inner index that a thread packs at a time, at most, where it packs several panels together.
const INNER: usize = 8;

/// Panels of rows and of columns that a thread takes at a time, at most.
const UNIT: (usize, usize) = (16, 8);

/// Units of a product for each thread, where it is large enough.
const UNITS: usize = 12;

/// The right operand of a product.
#[derive(Debug, Clone, Copy)]
pub enum Right<'a> {
    /// W (k × n).
    Plain(Matrix<'a>),
    /// Wᵀ, for W (n × k).
    Transposed(Matrix<'a>),
    /// A matrix that was packed as a left operand (k × n).
    Rounded(&'a Rounded),
    /// W (k × n), rounded from what its format decodes to.
    Stored(StoredWeight<'a>),
    /// Wᵀ, for W (n × k).
    StoredTransposed(StoredWeight<'a>),
}

/// Columns of a weight that are decoded at a time: whole blocks of every format, and with 32 rows small enough for the first cache.
const DECODED: usize = 256;

impl Right<'_> {
    /// Inner indices and columns.
    fn shape(&self) -> (usize, usize) {
        match self {
            Right::Plain(w) => (w.rows, w.cols),
            Right::Transposed(w) => (w.cols, w.rows),
            Right::Rounded(x) => (x.rows, x.cols),
            Right::Stored(w) => (w.rows(), w.cols()),
            Right::StoredTransposed(w) => (w.cols(), w.rows()),
        }
    }

    /// Columns of a weight that are decoded at a time.
    fn decoded(w: &StoredWeight<'_>) -> usize {
        DECODED.max(w.format().block_values())
    }

    /// Panels that are packed together, and blocks of the inner index that a piece must be a multiple of.
    fn grain(&self) -> (usize, usize) {
        match self {
            Right::Stored(w) => (Right::decoded(w) / SIDE, 1),
            Right::StoredTransposed(w) => (1, Right::decoded(w) / SIDE),
            _ => (1, 1),
        }
    }

    /// Packs up to [`grain`](Right::grain) panels, each `deep` blocks behind the one before.
    ///
    /// # Safety
    /// A kernel is available, the numbers exist, `columns` and `inner` begin at multiples of the grain, and `out` has room for the
    /// panels.
    unsafe fn pack(&self, columns: Range<usize>, inner: Range<usize>, out: *mut u8, deep: usize) {
        match self {
            Right::Stored(w) => with_scratch(SIDE * Right::decoded(w), |values| {
                for (block, row) in inner.clone().step_by(SIDE).enumerate() {
                    let rows = row..(row + SIDE).min(inner.end);
                    let tile = tile(w, rows.clone(), columns.clone(), values);
                    for (panel, column) in (0..columns.len()).step_by(SIDE).enumerate() {
                        let columns = column..(column + SIDE).min(columns.len());
                        let at = out.wrapping_add((panel * deep + block) * BLOCK);
                        // SAFETY: the caller's promise
                        unsafe { pack::columns(&tile, columns, 0..rows.len(), at) };
                    }
                }
            }),
            Right::StoredTransposed(w) => with_scratch(SIDE * Right::decoded(w), |values| {
                for column in inner.clone().step_by(Right::decoded(w)) {
                    let part = column..(column + Right::decoded(w)).min(inner.end);
                    let tile = tile(w, columns.clone(), part.clone(), values);
                    let at = out.wrapping_add((column - inner.start) / SIDE * BLOCK);
                    // SAFETY: the caller's promise
                    unsafe { pack::transposed(&tile, 0..columns.len(), 0..part.len(), at) };
                }
            }),
            // SAFETY: the caller's promise
            _ => unsafe { self.pack_one(columns, inner, out) },
        }
    }

    /// Packs a panel of up to 32 columns.
    ///
    /// # Safety
    /// A kernel is available, the numbers exist, `columns` and `inner` begin at multiples of 32, and `out` has room for the panel.
    unsafe fn pack_one(&self, columns: Range<usize>, inner: Range<usize>, out: *mut u8) {
        // SAFETY: the caller's promise
        unsafe {
            match self {
                Right::Plain(w) => pack::columns(w, columns, inner, out),
                Right::Transposed(w) => pack::transposed(w, columns, inner, out),
                Right::Rounded(x) => {
                    for (i, block) in (inner.start / SIDE..inner.end.div_ceil(SIDE)).enumerate() {
                        pack::columns_of_block(x.block(block, columns.start / SIDE), out.add(i * BLOCK));
                    }
                }
                Right::Stored(_) | Right::StoredTransposed(_) => unreachable!("decoded by `pack`"),
            }
        }
    }
}

/// A tile of a weight as a matrix in f32.
fn tile<'v>(w: &StoredWeight<'_>, rows: Range<usize>, columns: Range<usize>, values: &'v mut [f32]) -> Matrix<'v> {
    let (height, width) = (rows.len(), columns.len());
    w.read_tile(rows, columns, values, width);
    Matrix::of(View::new(&values[..height * width], height, width), 1.0)
}

/// A product X·W of a sum.
#[derive(Debug, Clone, Copy)]
pub struct LowRank<'a> {
    /// X (t × r).
    pub x: &'a Rounded,
    /// W (r × n).
    pub w: Right<'a>,
}

/// C (t × n) = (accumulate ? C : 0) + X·W + Σ `extra` with X (t × k) and W (k × n). C has contiguous rows.
///
/// # Panics
/// Where shapes do not fit, and without the kernel.
pub fn product(
    kernel: Kernel,
    c: ViewMut<'_, f32>,
    accumulate: bool,
    x: &Rounded,
    w: Right<'_>,
    extra: &[LowRank<'_>],
) {
    assert!(kernel.available(), "this processor has no {}", kernel.name());
    let (t, n) = (c.rows, c.cols);
    for (x, w) in std::iter::once((x, &w)).chain(extra.iter().map(|e| (e.x, &e.w))) {
        let (inner, columns) = w.shape();
        let (rows, cols) = (x.rows, x.cols);
        let fits = rows == t && cols == inner && columns == n;
        assert!(fits, "shapes do not fit: ({t}, {n}) from ({rows}, {cols})·({inner}, {columns})");
    }
    assert!(c.cs == 1 || n < 2, "rows of the output have no gaps");
    let mut c = ViewMut::with_stride(c.data, t, n, c.rs);
    let inner = x.cols;
    if t == 0 || n == 0 {
        return;
    }
    if inner == 0 {
        gemm_sum(c.reborrow(), accumulate, &[]);
        if let Some((first, rest)) = extra.split_first() {
            product(kernel, c, true, first.x, first.w, rest);
        }
        return;
    }
    let (panels, blocks) = (n.div_ceil(SIDE), inner.div_ceil(SIDE));
    let extra = Extra::new(t, n, extra);
    let wide = panels.min(PANELS);
    let (together, whole) = w.grain();
    let deep = (PACKED / (wide * BLOCK)).next_multiple_of(if whole > 1 { whole } else { DEPTH }).min(blocks);
    let mut memory = lines(wide * deep);
    let work = Work { kernel, ldc: c.rs, t, n, x, extra };
    let out = Shared::new(c.data);
    for first in (0..panels).step_by(wide) {
        let wide = wide.min(panels - first);
        for start in (0..blocks).step_by(deep) {
            let deep = deep.min(blocks - start);
            let packed = Shared::new(&mut memory);
            // panels that are packed together are cut along the inner index instead
            let (across, down) = (wide.div_ceil(together), if together > 1 { deep.div_ceil(INNER) } else { 1 });
            for_units(across * down, if together > 1 { 1 } else { 2 }, |i| {
                let (j, piece) = (i / down * together, i % down * deep / down..(i % down + 1) * deep / down);
                let columns = (first + j) * SIDE..((first + (j + together).min(wide)) * SIDE).min(n);
                let inner = (start + piece.start) * SIDE..((start + piece.end) * SIDE).min(inner);
                let at = (j * deep + piece.start) * BLOCK / size_of::<Line>();
                // SAFETY: pieces of panels do not overlap, the numbers exist, and the processor has the instructions
                unsafe { w.pack(columns, inner, packed.ptr(at).cast(), deep) };
            });
            let packed = Packed { at: &memory, first, start, deep };
            // an output's arithmetic does not depend on its unit; threads wait for each other at the end of a product, and units of
            // one size let them wait less
            let rows = t.div_ceil(SIDE);
            let across = wide.div_ceil(UNIT.1);
            let down = (UNITS * rayon::current_num_threads())
                .div_ceil(across)
                .min(rows.div_ceil(2))
                .max(rows.div_ceil(UNIT.0));
            for_units(down * across, 1, |i| {
                let (i, j) = (i / across, i % across);
                let rows = i * rows / down..(i + 1) * rows / down;
                let columns = first + j * wide / across..first + (j + 1) * wide / across;
                // SAFETY: units do not overlap
                unsafe { work.unit(&out, accumulate || start > 0, rows, columns, &packed) };
            });
        }
    }
}

/// Inner indices in the last block of so many.
fn tail(inner: usize) -> usize {
    (inner + SIDE - 1) % SIDE + 1
}

/// Memory for so many blocks.
fn lines(blocks: usize) -> Buffer<Line> {
    Buffer::new(blocks * BLOCK / size_of::<Line>())
}

/// The terms of low rank, packed one after another along the inner index.
struct Extra<'a> {
    blocks: usize,
    /// Inner indices of the last term in its last block.
    tail: usize,
    /// The left operand of a single term, as it is.
    single: Option<&'a Rounded>,
    /// Those of several terms.
    left: Buffer<Line>,
    right: Buffer<Line>,
}

impl<'a> Extra<'a> {
    fn new(t: usize, n: usize, terms: &[LowRank<'a>]) -> Extra<'a> {
        let blocks: usize = terms.iter().map(|e| e.x.blocks()).sum();
        let (rows, columns) = (t.div_ceil(SIDE), n.div_ceil(SIDE));
        let tail = terms.last().map_or(0, |last| tail(last.x.cols));
        let single = if let [only] = terms { Some(only.x) } else { None };
        let copied = if single.is_some() { 0 } else { rows };
        let (mut left, mut right) = (lines(copied * blocks), lines(columns * blocks));
        let out = [Shared::new(&mut left), Shared::new(&mut right)];
        let mut before = 0;
        for e in terms {
            let own = e.x.blocks();
            let place = |out: &Shared<'_, Line>, panel: usize| -> *mut u8 {
                out.ptr((panel * blocks + before) * BLOCK / size_of::<Line>()).cast()
            };
            for panel in 0..copied {
                // SAFETY: `own` blocks from the first of a panel on lie together, and the places are those of this term
                unsafe { std::ptr::copy_nonoverlapping(e.x.block(panel, 0), place(&out[0], panel), own * BLOCK) };
            }
            for_units(columns, 16, |j| {
                let columns = j * SIDE..((j + 1) * SIDE).min(n);
                // SAFETY: panels do not overlap, the numbers exist, and a kernel is available
                unsafe { e.w.pack_one(columns, 0..e.x.cols, place(&out[1], j)) };
            });
            before += own;
        }
        Extra { blocks, tail, single, left, right }
    }

    /// Panels of rows and of columns.
    fn panels(&self, row: usize, column: usize) -> Panels {
        let at =
            |lines: &[Line], panel: usize| lines[panel * self.blocks * BLOCK / size_of::<Line>()..].as_ptr().cast();
        let a = self.single.map_or_else(|| at(&self.left, row), |x| x.block(row, 0));
        Panels { a, b: at(&self.right, column), blocks: self.blocks, tail: self.tail }
    }
}

/// A product that is cut into units.
struct Work<'a> {
    kernel: Kernel,
    ldc: usize,
    t: usize,
    n: usize,
    x: &'a Rounded,
    extra: Extra<'a>,
}

/// Panels of columns from panel `first` on, with `deep` blocks of the inner index from `start` on.
struct Packed<'a> {
    at: &'a [Line],
    first: usize,
    start: usize,
    deep: usize,
}

impl Work<'_> {
    /// Panels `rows` × panels `columns` of the output.
    ///
    /// # Safety
    /// No other thread uses these outputs.
    unsafe fn unit(
        &self,
        out: &Shared<'_, f32>,
        accumulate: bool,
        rows: Range<usize>,
        columns: Range<usize>,
        packed: &Packed<'_>,
    ) {
        let tiles = Tiles::new(self.kernel);
        let right = packed.at.as_ptr().cast::<u8>();
        let last = packed.start + packed.deep == self.x.blocks();
        let parts = packed.deep.div_ceil(DEPTH);
        for part in 0..parts {
            let blocks = part * packed.deep / parts..(part + 1) * packed.deep / parts;
            let accumulate = accumulate || part > 0;
            let end = last && part + 1 == parts;
            for i in rows.clone() {
                for j in columns.clone() {
                    let (r, q) = (i * SIDE, j * SIDE);
                    let (high, wide) = ((self.t - r).min(SIDE), (self.n - q).min(SIDE));
                    let main = Panels {
                        a: self.x.block(i, packed.start + blocks.start),
                        b: right.wrapping_add(((j - packed.first) * packed.deep + blocks.start) * BLOCK),
                        blocks: blocks.len(),
                        tail: if end { tail(self.x.cols) } else { SIDE },
                    };
                    let tile = Tile {
                        main,
                        extra: if end { self.extra.panels(i, j) } else { Panels::NONE },
                        c: out.ptr(r * self.ldc + q),
                        ldc: self.ldc,
                        accumulate,
                    };
                    // SAFETY: panels lie in their operands; outputs lie in C, which is this thread's here
                    unsafe { tiles.part(tile, high, wide) };
                }
            }
        }
    }
}
