//! Attention on the GPU.

use super::call::{Address, Grid};
use super::launch::launch;
use super::memory::{Buffer, Layout, width};
use super::ops::{keep, named};
use crate::compute::Compute;
use crate::kernels::attention::AttnShape;
use crate::kernels::elementwise::threshold;
use crate::tensor::Tensor;

/// Queries or keys in a tile, as in attention.cu.
const TILE: usize = 32;
/// The same in attention_bf16.cu.
const ROWS: usize = 64;
/// Queries of a block there in the forward pass.
const QUERIES: usize = 128;
const THREADS: usize = 128;

/// Width with zeros of the heads that tensor cores work on, where they do.
fn on_tensor_cores(compute: Compute, shape: &AttnShape) -> Option<usize> {
    let d = shape.head_dim;
    match compute == Compute::CudaBf16 && d > 0 && d.is_multiple_of(8) && shape.cap.is_none() {
        true => [32, 64, 128].into_iter().find(|&wide| d <= wide),
        false => None,
    }
}

/// Keys or queries of a step of the backward passes on tensor cores.
fn step(wide: usize) -> usize {
    if wide <= 64 { 64 } else { 32 }
}

/// Bytes of shared memory: `tiles` of heads and `squares` of weights in the number type of the activations; `scores`
/// squares and `sums` of heads in f32. Rows are apart as in attention.cu.
fn shared(compute: Compute, d: usize, tiles: usize, squares: usize, scores: usize, sums: usize) -> usize {
    let wide = d.next_multiple_of(16);
    TILE * (width(compute) * (tiles * (wide + 8) + squares * (TILE + 8))
        + 4 * (scores * (TILE + 4) + sums * (wide + 4)))
}

fn on_heads(name: &str, wide: usize, shape: &AttnShape) -> String {
    format!("{name}_{wide}{}", if shape.dropout.is_some_and(|d| d.p > 0.0) { "_dropout" } else { "" })
}

/// Tiles of `size` rows of all sequences: first token of the sequence, its length, first position in the tile. Tiles with
/// much work come first, so that none of them is begun last: of queries those late in a sequence, of keys those early.
fn tiles(lengths: &[usize], size: usize, keys: bool, causal: bool) -> Buffer {
    let mut all = Vec::new();
    let mut start = 0;
    for &n in lengths {
        for first in (0..n).step_by(size) {
            let work = if !causal {
                n
            } else if keys {
                n - first
            } else {
                first
            };
            all.push((work, [start as u32, n as u32, first as u32]));
        }
        start += n;
    }
    all.sort_by_key(|(work, _)| std::cmp::Reverse(*work));
    let numbers: Vec<u32> = all.into_iter().flat_map(|(_, tile)| tile).collect();
    Buffer::of_numbers(&numbers)
}

fn tile_count(lengths: &[usize], size: usize) -> usize {
    lengths.iter().map(|n| n.div_ceil(size)).sum()
}

/// Launches a kernel that ends with the parameters of a shape.
macro_rules! launch_shaped {
    ($name:expr, $grid:expr, $shape:expr; $($argument:expr),+) => {{
        let s: &AttnShape = $shape;
        // a threshold of 0 drops nothing
        let (p, seed) = s.dropout.map_or((0.0, 0), |d| (d.p, d.seed));
        launch!(
            $name, $grid;
            $($argument),+, s.heads as i32, s.kv_heads as i32, s.head_dim as i32, s.scale as f32, s.cap.unwrap_or(0.0) as f32,
            i32::from(s.causal),
            s.window.map_or(-1, |w| w.min(i32::MAX as usize / 2) as i32), keep(p), threshold(p), seed
        );
    }};
}

/// o and lse (t, heads) of sequences.
pub(crate) fn attention(
    [q, k, v]: [&Tensor; 3],
    o: &mut Tensor,
    lse: &mut Tensor,
    lengths: &[usize],
    layout: &Layout,
    shape: &AttnShape,
) {
    let d = shape.head_dim;
    let (name, grid, size) = match on_tensor_cores(q.compute(), shape) {
        Some(wide) => {
            let blocks = (shape.heads, tile_count(lengths, QUERIES));
            let shared = 2 * (2 * ROWS + QUERIES) * (wide + 8);
            (on_heads("heads_forward", wide, shape), Grid { blocks, threads: THREADS, shared }, QUERIES)
        }
        None => {
            let blocks = (tile_count(lengths, TILE), shape.heads);
            let shared = shared(q.compute(), d, 3, 1, 1, 1);
            (named("attention_forward", q), Grid { blocks, threads: THREADS, shared }, TILE)
        }
    };
    let tiles = layout.forward_tiles.get_or_init(|| tiles(lengths, size, false, shape.causal));
    launch_shaped!(
        name, grid, shape;
        q.address(), k.address(), v.address(), o.address(), lse.address(), tiles.address()
    );
}

/// Overwrites dq, dk and dv.
pub(crate) fn attention_backward(
    [q, k, v]: [&Tensor; 3],
    (o, lse): (&Tensor, &Tensor),
    d_o: &Tensor,
    [dq, dk, dv]: [&mut Tensor; 3],
    lengths: &[usize],
    layout: &Layout,
    shape: &AttnShape,
) {
    let (d, rows) = (shape.head_dim, q.rows() * shape.heads);
    let delta = Tensor::scratch(Compute::CudaF32, q.rows(), shape.heads);
    let warps = Grid { blocks: ((rows * 32).div_ceil(256), 1), threads: 256, shared: 0 };
    launch!(named("attention_delta", o), warps; o.address(), d_o.address(), delta.address(), d as i32, rows as i64);
    let (names, grids, size) = match on_tensor_cores(q.compute(), shape) {
        Some(wide) => {
            let count = tile_count(lengths, ROWS);
            let (row, step) = (2 * (wide + 8), step(wide));
            let queries = Grid { blocks: (shape.heads, count), threads: THREADS, shared: 4 * step * row };
            let shared = (2 * ROWS + 4 * step) * row + 4 * step * 4;
            let keys = Grid { blocks: (shape.kv_heads, count), threads: THREADS, shared };
            let names = ["heads_backward_q", "heads_backward_kv"].map(|name| on_heads(name, wide, shape));
            (names, [queries, keys], ROWS)
        }
        None => {
            let count = tile_count(lengths, TILE);
            let bytes = |sums| shared(q.compute(), d, 4, 2, 2, sums);
            let queries = Grid { blocks: (count, shape.heads), threads: THREADS, shared: bytes(1) };
            let keys = Grid { blocks: (count, shape.kv_heads), threads: THREADS, shared: bytes(2) };
            ([named("attention_backward_q", q), named("attention_backward_kv", q)], [queries, keys], TILE)
        }
    };
    let query_tiles = layout.query_tiles.get_or_init(|| tiles(lengths, size, false, shape.causal));
    launch_shaped!(
        &names[0], grids[0], shape;
        q.address(), k.address(), v.address(), lse.address(), delta.address(), d_o.address(), dq.address(),
        query_tiles.address()
    );
    let key_tiles = layout.key_tiles.get_or_init(|| tiles(lengths, size, true, shape.causal));
    launch_shaped!(
        &names[1], grids[1], shape;
        q.address(), k.address(), v.address(), lse.address(), delta.address(), d_o.address(), dk.address(), dv.address(),
        key_tiles.address()
    );
}

/// New queries, the last of a sequence, against all its keys and values; lse (queries, heads) where it is asked for.
pub(crate) fn attention_cached([q, k, v]: [&Tensor; 3], o: &mut Tensor, lse: Option<&mut Tensor>, shape: &AttnShape) {
    let lse = lse.map_or(Address::NULL, |lse| lse.address());
    let grid = Grid { blocks: (q.rows(), shape.heads), threads: THREADS, shared: 4 * (2 * shape.head_dim + THREADS) };
    launch_shaped!(
        named("attention_cached", q), grid, shape;
        q.address(), k.address(), v.address(), o.address(), lse, q.rows() as i32, k.rows() as i32
    );
}

/// o (t, heads·d) and lse (t, heads) as they are with a further score for each head.
pub(crate) fn add_sinks(o: &mut Tensor, lse: &mut Tensor, sinks: &Tensor, d: usize) {
    launch!(
        named("add_sinks", o), Grid::rows(lse.len(), d);
        o.address(), lse.address(), sinks.address(), sinks.cols() as i32, d as i32
    );
}
