//! Products of low rank in bf16 (kernels/low_rank.cu): factors of adapters stacked, h = x·Aᵀ and what becomes of it.

use super::call::{Address, Grid};
use super::launch::launch;
use super::product::cast;
use crate::compute::Compute;
use crate::held::Held;
use crate::tensor::Tensor;
use std::ops::Range;

/// Ranks that a kernel is compiled for; the last ones are for layers beside each other only.
const RANKS: [usize; 6] = [16, 32, 48, 64, 96, 128];
/// The highest rank of one layer, its initial factors included.
pub(crate) const OF_LAYER: usize = 64;
/// The highest rank of all layers with one input.
pub(crate) const OF_GROUP: usize = 128;
/// Factors that are stacked at most.
pub(crate) const FACTORS: usize = 6;
/// Ranks and sizes are multiples of it, so that memory is read in pieces of 16 bytes.
pub(crate) const PIECE: usize = 8;
/// Room beside weights and inputs is a multiple of it: rows of 128 bytes.
pub(crate) const ROOM: usize = 64;

/// Blocks that keep the GPU busy.
const BLOCKS: usize = 264;

// as in low_rank.cu
const DOWN: (usize, usize, usize, usize) = (128, 128, 64, 4);
const OUTER: (usize, usize, usize, usize) = (256, 256, 32, 4);
const LANES: usize = 4;
const UP: (usize, usize) = (256, 128);

/// A factor of an adapter, in bf16, and what products with it are multiplied by.
pub(crate) struct Factor<'a> {
    values: Held<'a>,
    scale: f64,
}

impl<'a> Factor<'a> {
    pub fn new(values: &'a Tensor, scale: f64) -> Factor<'a> {
        Factor { values: cast(values, Compute::CudaBf16), scale }
    }
}

/// Columns of a matrix in bf16.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub all: &'a Tensor,
    pub from: usize,
    pub width: usize,
}

impl Columns<'_> {
    fn address(self) -> Address {
        self.all.buffer().at(self.from)
    }

    fn pitch(self) -> i32 {
        self.all.cols() as i32
    }
}

/// Matrices in a row, as kernels read them.
struct Stack {
    at: [Address; FACTORS],
    end: [i32; FACTORS],
}

impl Stack {
    /// `widths` are rows of factors, or columns.
    fn new(parts: impl Iterator<Item = (Address, usize)>) -> Stack {
        let mut stack = Stack { at: [Address::NULL; FACTORS], end: [0; FACTORS] };
        let (mut count, mut end) = (0, 0);
        for (at, width) in parts {
            end += width as i32;
            (stack.at[count], stack.end[count]) = (at, end);
            count += 1;
        }
        stack.end[count..].fill(end);
        stack
    }

    fn width(&self) -> usize {
        self.end[FACTORS - 1] as usize
    }
}

fn rows_of(factors: &[Factor<'_>]) -> Stack {
    Stack::new(factors.iter().map(|f| (f.values.address(), f.values.rows())))
}

fn columns_of(factors: &[Factor<'_>]) -> Stack {
    Stack::new(factors.iter().map(|f| (f.values.address(), f.values.cols())))
}

/// The rank of the kernel for `width`.
fn rank(width: usize) -> usize {
    RANKS.into_iter().find(|&r| width <= r).expect("callers keep to OF_GROUP")
}

/// Pieces of `n`, in whole steps of `step`: as many as there are blocks left beside `others`, with at least `least` steps each.
/// Their number and length.
fn split(n: usize, step: usize, others: usize, least: usize) -> (usize, usize) {
    let steps = n.div_ceil(step);
    let pieces = (BLOCKS / others.max(1)).clamp(1, (steps / least).max(1));
    let span = steps.div_ceil(pieces) * step;
    (n.div_ceil(span), span)
}

/// Launches a kernel that ends with the parameters of a stack.
macro_rules! launch_stacked {
    ($name:expr, $grid:expr, $stack:expr; $($argument:expr),+) => {{
        let s: &Stack = $stack;
        launch!(
            $name, $grid;
            $($argument),+, s.at[0], s.at[1], s.at[2], s.at[3], s.at[4], s.at[5], s.end[0], s.end[1], s.end[2],
            s.end[3], s.end[4], s.end[5]
        );
    }};
}

/// Σ parts (t, r) in columns of `out`, those of each factor times its scale. A copy goes into the columns of `wide` from
/// column m on, with zeros after it, where `wide` is `Some((tensor, m))`.
fn sum(
    parts: &Tensor,
    splits: usize,
    stack: &Stack,
    factors: &[Factor<'_>],
    out: Columns<'_>,
    wide: Option<(&Tensor, usize)>,
) {
    let (t, r) = (out.all.rows(), parts.cols());
    let (copy, pitch, copied) = match wide {
        Some((wide, m)) => (wide.buffer().at(m), wide.cols() as i32, wide.cols() - m),
        None => (Address::NULL, 0, 0),
    };
    let mut s = [0.0f32; FACTORS];
    s.iter_mut().zip(factors).for_each(|(s, factor)| *s = factor.scale as f32);
    let e = stack.end;
    launch!(
        "low_rank_sum", Grid::eights(t * copied.max(out.width) * LANES);
        parts.address(), splits as i32, out.address(), out.pitch(), out.width as i32, r as i32, t as i32, copy, pitch,
        copied as i32, s[0], s[1], s[2], s[3], s[4], s[5], e[0], e[1], e[2], e[3], e[4]
    );
}

/// scale·x·Aᵀ for stacked A (r, m): (t, Σ r). x is (t, m), or wider: then columns m.. become the result, with zeros after it.
pub(crate) fn down(x: &Tensor, factors: &[Factor<'_>]) -> Tensor {
    let (threads, rows, step, stages) = DOWN;
    let t = x.rows();
    let m = factors[0].values.cols();
    let stack = rows_of(factors);
    let r = rank(stack.width());
    let tiles = t.div_ceil(rows);
    let (splits, span) = split(m, step, tiles, 4);
    let parts = Tensor::scratch(Compute::CudaF32, splits * t, r);
    let grid = Grid { blocks: (tiles, splits), threads, shared: 2 * stages * (rows + r) * (step + 8) };
    launch_stacked!(
        format!("low_rank_down_{r}"), grid, &stack;
        x.address(), x.cols() as i32, parts.address(), t as i32, m as i32, span as i32
    );
    let out = Tensor::scratch(Compute::CudaBf16, t, stack.width());
    let columns = Columns { all: &out, from: 0, width: stack.width() };
    sum(&parts, splits, &stack, factors, columns, (x.cols() > m).then_some((x, m)));
    out
}

/// A weight (n, m) in bf16 with `room` more columns, which are zeros.
pub(crate) fn widen(w: &Tensor, room: usize) -> Tensor {
    let (n, m) = (w.rows(), w.cols());
    let wide = Tensor::scratch(Compute::CudaBf16, n, m + room);
    launch!(
        "low_rank_widen", Grid::eights(wide.len());
        w.address(), wide.address(), m as i32, room as i32, n as i32
    );
    wide
}

/// Puts stacked B (n, r) beside a weight (n, m) that has room for it, `from` columns after its end.
pub(crate) fn place(wide: &Tensor, m: usize, from: usize, factors: &[Factor<'_>]) {
    let (n, room) = (wide.rows(), wide.cols() - m);
    launch_stacked!(
        "low_rank_place", Grid::eights(n * room), &columns_of(factors);
        wide.address(), m as i32, room as i32, from as i32, n as i32
    );
}

/// y = base + h·Bᵀ, or without base, for stacked B (n, r).
pub(crate) fn up(h: Columns<'_>, factors: &[Factor<'_>], base: Option<&Tensor>, y: &mut Tensor) {
    launch_up(h, factors, true, base.map(Tensor::address), y);
}

/// y = base + h·w: w are the factors' transposes, stacked, with `transposed`, else the factors.
fn launch_up(h: Columns<'_>, factors: &[Factor<'_>], transposed: bool, base: Option<Address>, y: &Tensor) {
    let (threads, tile) = UP;
    let (t, n) = (y.rows(), y.cols());
    let stack = if transposed { columns_of(factors) } else { rows_of(factors) };
    let r = rank(h.width);
    let factor_tile = if transposed { tile * (r + 8) } else { r * (tile + 8) };
    let shared = 2 * (tile * (r + 8) + factor_tile).max(tile * (tile + 8));
    let grid = Grid { blocks: (n.div_ceil(tile), t.div_ceil(tile)), threads, shared };
    let name = format!("low_rank_up{}_{r}", if transposed { "_t" } else { "" });
    let base = base.unwrap_or(Address::NULL);
    launch_stacked!(
        name, grid, &stack;
        h.address(), h.pitch(), h.width as i32, base, y.address(), t as i32, n as i32
    );
}

/// dx = (accumulate ? dx : 0) + g·A for stacked A (r, m).
pub(crate) fn add_up(g: Columns<'_>, factors: &[Factor<'_>], dx: &mut Tensor, accumulate: bool) {
    // each block reads what it writes, and nothing else
    let base = accumulate.then(|| dx.address());
    launch_up(g, factors, false, base, dx);
}

/// How the rows of x are cut for sums over them: blocks of columns, their number, rows in each, and the grid.
fn outer_grid(t: usize, columns: usize, shared: usize) -> (usize, usize, usize, Grid) {
    let (threads, wide, step, _) = OUTER;
    let blocks = columns.div_ceil(wide);
    let (splits, span) = split(t, step, blocks, 4);
    (blocks, splits, span, Grid { blocks: (blocks, splits), threads, shared })
}

fn outer_shared(r: usize) -> usize {
    let (_, wide, step, stages) = OUTER;
    2 * stages * step * (wide + 8 + r + 8)
}

/// Adds gᵀ·x to stacked outputs (r, columns) in f32, those that are there; x: (t, columns), g: (t, Σ r).
pub(crate) fn outer(x: &Tensor, g: &Tensor, outputs: &[(Option<Address>, usize)]) {
    let (t, columns) = (x.rows(), x.cols());
    let r = rank(g.cols());
    let (_, splits, span, grid) = outer_grid(t, columns, outer_shared(r));
    let parts = Tensor::scratch(Compute::CudaF32, splits * columns, r);
    launch!(
        format!("low_rank_outer_{r}"), grid;
        x.address(), g.address(), g.cols() as i32, g.cols() as i32, parts.address(), t as i32, columns as i32, span as i32
    );
    let stack = Stack::new(outputs.iter().map(|&(at, width)| (at.unwrap_or(Address::NULL), width)));
    add(&parts, splits, columns, false, &stack);
}

/// Both uses of dy (t, n): scale·dy·B, for stacked B (n, r), into columns of `g`, and dyᵀ·h, added to `db` (n, h's width)
/// where it is there.
pub(crate) fn both(
    dy: &Tensor,
    h: Columns<'_>,
    factors: &[Factor<'_>],
    db: Option<&Tensor>,
    g: &Tensor,
    at: Range<usize>,
) {
    let (t, n) = (dy.rows(), dy.cols());
    let stack = columns_of(factors);
    let r = rank(stack.width());
    let shared = outer_shared(r) + 2 * OUTER.1 * (r + 8) + 4 * OUTER.0 / 32 * 16 * r;
    let (blocks, splits, span, grid) = outer_grid(t, n, shared);
    let parts = Tensor::scratch(Compute::CudaF32, splits * n, r);
    let projected = Tensor::scratch(Compute::CudaF32, blocks * t, r);
    launch_stacked!(
        format!("low_rank_both_{r}"), grid, &stack;
        dy.address(), h.address(), h.pitch(), h.width as i32, parts.address(), projected.address(), t as i32, n as i32,
        span as i32
    );
    sum(&projected, blocks, &stack, factors, Columns { all: g, from: at.start, width: at.len() }, None);
    if let Some(db) = db {
        add(&parts, splits, n, true, &Stack::new(std::iter::once((db.address(), h.width))));
    }
}

/// Adds parts (columns, r each) to stacked outputs, which are (width, columns), or the one output (columns, width) of `plain`.
fn add(parts: &Tensor, splits: usize, columns: usize, plain: bool, stack: &Stack) {
    let width = stack.width();
    launch_stacked!(
        "low_rank_add", Grid::eights(columns * width * LANES), stack;
        parts.address(), splits as i32, columns as i32, parts.cols() as i32, width as i32, i32::from(plain)
    );
}
