//! Attention on the GPU.

use super::device::{Grid, launch};
use super::memory::{Buffer, Layout, width};
use super::ops::{keep, named};
use crate::kernels::attention::AttnShape;
use crate::kernels::elementwise::threshold;
use crate::tensor::{Compute, Tensor};

/// Queries or keys in a tile, as in attention.cu.
const TILE: usize = 32;
const THREADS: usize = 128;

/// Bytes of shared memory: `tiles` of heads and `squares` of weights in the number type of the activations; `scores`
/// squares and `sums` of heads in f32. Rows are apart as in attention.cu.
fn shared(compute: Compute, d: usize, tiles: usize, squares: usize, scores: usize, sums: usize) -> usize {
    let wide = d.next_multiple_of(16);
    TILE * (width(compute) * (tiles * (wide + 8) + squares * (TILE + 8))
        + 4 * (scores * (TILE + 4) + sums * (wide + 4)))
}

/// Tiles of all documents: first token of the document, its length, first position in the tile.
fn tiles<'a>(layout: &'a Layout, lengths: &[usize]) -> &'a Buffer {
    layout.tiles.get_or_init(|| {
        let mut all = Vec::new();
        let mut start = 0;
        for &n in lengths {
            for first in (0..n).step_by(TILE) {
                all.extend([start as u32, n as u32, first as u32]);
            }
            start += n;
        }
        Buffer::of_numbers(&all)
    })
}

fn tile_count(lengths: &[usize]) -> usize {
    lengths.iter().map(|n| n.div_ceil(TILE)).sum()
}

/// Launches a kernel that ends with the parameters of a shape.
macro_rules! launch_shaped {
    ($name:expr, $grid:expr, $shape:expr; $($argument:expr),+) => {{
        let s: &AttnShape = $shape;
        // a threshold of 0 drops nothing
        let (p, seed) = s.dropout.map_or((0.0, 0), |d| (d.p, d.seed));
        launch!(
            $name, $grid;
            $($argument),+, s.heads as i32, s.kv_heads as i32, s.head_dim as i32, s.scale as f32, i32::from(s.causal),
            s.window.map_or(-1, |w| w.min(i32::MAX as usize / 2) as i32), keep(p), threshold(p), seed
        );
    }};
}

/// o and lse (t, heads) of documents.
pub(crate) fn attention(
    [q, k, v]: [&Tensor; 3],
    o: &mut Tensor,
    lse: &mut Tensor,
    lengths: &[usize],
    layout: &Layout,
    shape: &AttnShape,
) {
    let tiles = tiles(layout, lengths);
    let grid = Grid {
        blocks: (tile_count(lengths), shape.heads),
        threads: THREADS,
        shared: shared(q.compute(), shape.head_dim, 3, 1, 1, 1),
    };
    launch_shaped!(
        named("attention_forward", q), grid, shape;
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
    let (tiles, count) = (tiles(layout, lengths), tile_count(lengths));
    let bytes = |sums| shared(q.compute(), d, 4, 2, 2, sums);
    let queries = Grid { blocks: (count, shape.heads), threads: THREADS, shared: bytes(1) };
    launch_shaped!(
        named("attention_backward_q", q), queries, shape;
        q.address(), k.address(), v.address(), lse.address(), delta.address(), d_o.address(), dq.address(), tiles.address()
    );
    let keys = Grid { blocks: (count, shape.kv_heads), threads: THREADS, shared: bytes(2) };
    launch_shaped!(
        named("attention_backward_kv", q), keys, shape;
        q.address(), k.address(), v.address(), lse.address(), delta.address(), d_o.address(), dk.address(), dv.address(),
        tiles.address()
    );
}

/// New queries, the last of a document, against all its keys and values.
pub(crate) fn attention_cached([q, k, v]: [&Tensor; 3], o: &mut Tensor, shape: &AttnShape) {
    let grid = Grid { blocks: (q.rows(), shape.heads), threads: THREADS, shared: 4 * (2 * shape.head_dim + THREADS) };
    launch_shaped!(
        named("attention_cached", q), grid, shape;
        q.address(), k.address(), v.address(), o.address(), q.rows() as i32, k.rows() as i32
    );
}
