//! Masks of tiles.

use super::{AttnDropout, BQ};
use crate::kernels::Real;
use crate::kernels::elementwise::{keys, mix, threshold};

/// Draws for a block of queries of one head.
pub(super) struct TileMask<T> {
    /// Two keys for each query.
    keys: [[u32; BQ]; 2],
    threshold: u32,
    keep: T,
}

impl<T: Real> TileMask<T> {
    /// `first` is the number of the block's first query among all tokens of the batch, `heads` and `head` say which of the
    /// heads it is.
    pub fn new(dropout: AttnDropout, first: usize, heads: usize, head: usize) -> TileMask<T> {
        let of = |i: usize| keys(dropout.seed, ((first + i) * heads + head) as u64);
        let both = [std::array::from_fn(|i| of(i)[0]), std::array::from_fn(|i| of(i)[1])];
        let keep = if dropout.p < 1.0 { T::from_f64(1.0 / (1.0 - dropout.p)) } else { T::ZERO };
        TileMask { keys: both, threshold: threshold(dropout.p), keep }
    }

    /// Drops from a tile of keys (from position `first` in the sequence on) × queries.
    #[inline(always)]
    pub fn apply(&self, tile: &mut [T], first: usize) {
        for (j, row) in tile.chunks_exact_mut(BQ).enumerate() {
            let j = (first + j) as u32;
            for ((x, &a), &b) in row.iter_mut().zip(&self.keys[0]).zip(&self.keys[1]) {
                let draw = mix(mix(j ^ a).wrapping_add(b));
                *x = if draw >= self.threshold { *x * self.keep } else { T::ZERO };
            }
        }
    }
}
