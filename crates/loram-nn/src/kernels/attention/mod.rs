//! Scaled dot-product attention over concatenated sequences, tiled so that no (length × length) matrix ever
//! exists (arXiv:2205.14135, 2307.08691), with grouped key/value heads (arXiv:2305.13245) and sliding windows.
//!
//! Score tiles are held transposed, keys down and queries across: then the running maximum and sum of the softmax are
//! elementwise operations on vectors of queries, and of all operands only blocks of queries need transposing.

mod backward;
mod cached;
mod disentangled;
mod dropout;
mod forward;
pub mod rounded;
mod sinks;
mod units;

pub use backward::attention_backward;
pub use cached::{Cached, attention_cached};
pub use disentangled::{DisentangledGradients, RelativeTerms, disentangled, disentangled_backward};
pub use forward::attention;
pub use sinks::add_sinks;

use std::ops::Range;

use super::Real;

/// Queries in a tile.
const BQ: usize = 64;
/// Keys in a tile.
const BK: usize = 64;

/// Heads, scale and mask of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttnShape {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key and value heads; query head h reads key head h / (heads/kv_heads).
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Factor on the scores (usually 1/√head_dim).
    pub scale: f64,
    /// Scores x become cap·tanh(x/cap) before the mask (Gemma 2).
    pub cap: Option<f64>,
    /// Query i sees key j only if j ≤ i.
    pub causal: bool,
    /// Causal: key j is visible to query i only if i − j < window (Mistral). Otherwise only if |i − j| ≤ window.
    pub window: Option<usize>,
    /// Dropout on the weights, in training ([`attention`] and [`attention_backward`] only).
    pub dropout: Option<AttnDropout>,
}

/// Dropout on attention weights: what is not dropped is divided by 1 − p. The mask follows from the seed and the places of
/// query, head and key alone, so that the backward pass redraws it, tile by tile.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttnDropout {
    /// Probability of dropping a weight.
    pub p: f64,
    /// Seed of the masks.
    pub seed: u64,
}

impl AttnShape {
    /// Elements of a row of queries.
    pub fn q_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Elements of a row of keys or values.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    fn group(&self) -> usize {
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads over {} key heads",
            self.heads,
            self.kv_heads
        );
        self.heads / self.kv_heads
    }

    /// Positions of the queries that see key `j`.
    #[inline(always)]
    fn queries_of(&self, j: usize) -> Range<usize> {
        match (self.causal, self.window) {
            (true, None) => j..usize::MAX,
            (true, Some(w)) => j..j.saturating_add(w),
            (false, None) => 0..usize::MAX,
            (false, Some(w)) => j.saturating_sub(w)..j.saturating_add(w).saturating_add(1),
        }
    }

    /// The keys of 0..`n` that any of the queries at positions `i` (not empty) sees.
    #[inline(always)]
    fn keys_of(&self, i: Range<usize>, n: usize) -> Range<usize> {
        let (low, high) = match (self.causal, self.window) {
            (true, None) => (0, i.end),
            (true, Some(w)) => ((i.start + 1).saturating_sub(w), i.end),
            (false, None) => (0, n),
            (false, Some(w)) => (i.start.saturating_sub(w), i.end.saturating_add(w)),
        };
        let high = high.min(n);
        low.min(high)..high
    }

    /// Returns whether any of the queries at positions `queries` (not empty) sees any of the keys `keys` of a sequence of `n`.
    #[inline(always)]
    fn sees(&self, queries: Range<usize>, keys: Range<usize>, n: usize) -> bool {
        let seen = self.keys_of(queries, n);
        seen.start < keys.end && keys.start < seen.end
    }

    /// Soft-caps the scores of a tile.
    #[inline(always)]
    fn soft_cap<T: Real>(&self, tile: &mut [T]) {
        let Some(cap) = self.cap else { return };
        let (cap, inverse) = (T::from_f64(cap), T::from_f64(1.0 / cap));
        for x in tile {
            *x = (*x * inverse).tanh() * cap;
        }
    }

    /// Set the scores of what may not be seen to −∞: a tile of keys `keys` × queries at positions `queries`.
    #[inline(always)]
    fn mask<T: Real>(&self, tile: &mut [T], keys: Range<usize>, queries: Range<usize>) {
        let all =
            self.queries_of(keys.end - 1).start <= queries.start && self.queries_of(keys.start).end >= queries.end;
        if all {
            return;
        }
        for (row, j) in tile.chunks_exact_mut(BQ).zip(keys) {
            let row = &mut row[..queries.len()];
            let seen = self.queries_of(j);
            let from = seen.start.saturating_sub(queries.start).min(row.len());
            let to = seen.end.saturating_sub(queries.start).min(row.len()).max(from);
            row[..from].fill(T::NEG_INFINITY);
            row[to..].fill(T::NEG_INFINITY);
        }
    }
}

/// `to[p·BQ + i] = from[i·stride + p]·scale` for `rows` queries, 0 for the other columns up to `width`.
///
/// # Safety
/// `from` has `rows` rows of `d` elements at that stride.
#[inline(always)]
unsafe fn transpose<T: Real>(
    from: *const T,
    stride: usize,
    rows: usize,
    d: usize,
    width: usize,
    scale: T,
    to: &mut [T],
) {
    for i in 0..rows {
        // SAFETY: the caller's promise
        let row = unsafe { std::slice::from_raw_parts(from.add(i * stride), d) };
        for (column, &x) in to.chunks_exact_mut(BQ).zip(row) {
            column[i] = x * scale;
        }
    }
    for column in to.chunks_exact_mut(BQ) {
        column[rows..width].fill(T::ZERO);
    }
}

/// Blocks of `size` that 0..`n` is cut into, clipped to `range` in whole blocks.
#[inline(always)]
fn blocks(range: Range<usize>, size: usize, n: usize) -> impl Iterator<Item = Range<usize>> {
    (range.start / size..range.end.div_ceil(size)).map(move |b| b * size..((b + 1) * size).min(n))
}

/// The rows of each sequence.
fn sequences(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> + '_ {
    lengths.iter().scan(0, |at, &n| {
        let start = *at;
        *at += n;
        Some(start..*at)
    })
}
