//! Attention with products in bf16 and sums in f32, from and to numbers in f32. Masks, softmax and its gradient are those in
//! f32; queries, keys, values, weights and their gradients are rounded on their way into products.

mod backward;
mod forward;
mod operand;
#[cfg(test)]
mod tests;

pub use backward::attention_backward;
pub use forward::attention;

use super::super::bf16::{BLOCK, Panels, SIDE, Tile};
use super::{AttnShape, BK, BQ};
use std::ops::Range;

/// Numbers in f32 that take the place of a block of a panel.
const FLOATS: usize = BLOCK / size_of::<f32>();

/// Panels of queries and of keys in a tile of scores.
const PANELS: usize = BQ / SIDE;
const _: () = assert!(BQ == BK && BQ.is_multiple_of(SIDE));

/// Panel number `i` of the rows of a block.
fn panel(of: &Range<usize>, i: usize) -> Range<usize> {
    of.start + i * SIDE..(of.start + (i + 1) * SIDE).min(of.end)
}

/// Panels of `keys` that panel `i` of `queries` sees in a sequence of `n`: from the first to the last.
fn seen(shape: &AttnShape, queries: &Range<usize>, i: usize, keys: &Range<usize>, n: usize) -> Range<usize> {
    let sees = |j: &usize| shape.sees(panel(queries, i), panel(keys, *j), n);
    let mut all = 0..keys.len().div_ceil(SIDE);
    match (all.clone().find(sees), all.rfind(sees)) {
        (Some(first), Some(last)) => first..last + 1,
        _ => 0..0,
    }
}

/// A product of panels into outputs `ldc` apart.
fn tile(a: *const u8, b: *const u8, blocks: usize, c: *mut f32, ldc: usize, accumulate: bool) -> Tile {
    Tile { main: Panels { a, b, blocks, tail: SIDE }, extra: Panels::NONE, c, ldc, accumulate }
}

/// Block number `at` of packed memory.
fn block(packed: &mut [f32], at: usize) -> *mut u8 {
    packed[at * FLOATS..].as_mut_ptr().cast()
}
