//! Where the values of a weight come from, for work that needs them once, in order.

use crate::weight::WeightRef;
use rayon::prelude::*;
use std::convert::Infallible;
use std::ops::Range;

/// Values summed by one task; a constant, so that the result does not depend on the number of threads.
const BLOCK: usize = 1 << 16;

/// Values in memory, or in a file that is read piece by piece: into a buffer that stays in the cache, where mapping the
/// pages of the file would take as long as the work on them.
pub trait Source: Sync {
    /// Why values cannot be had.
    type Error: Send;

    /// Number of values.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in `at`: where they lie, or as they are read into `buffer`. Panics beyond the end, like a slice.
    fn fetch<'b>(
        &'b self,
        at: Range<usize>,
        buffer: &'b mut Vec<u64>,
    ) -> std::result::Result<WeightRef<'b>, Self::Error>;
}

impl Source for WeightRef<'_> {
    type Error = Infallible;

    fn len(&self) -> usize {
        WeightRef::len(self)
    }

    fn fetch<'b>(&'b self, at: Range<usize>, _: &'b mut Vec<u64>) -> std::result::Result<WeightRef<'b>, Infallible> {
        Ok(self.part(at))
    }
}

/// Σx and Σx² in f64, in one pass; the same bits for any source, any number of threads and any vector unit. The second is
/// finite exactly when all values are. The error is that of the first block that cannot be read.
pub fn sums<S: Source>(source: &S) -> std::result::Result<(f64, f64), S::Error> {
    let len = source.len();
    let of = |buffer: &mut Vec<u64>, b: usize| {
        let values = source.fetch(b * BLOCK..((b + 1) * BLOCK).min(len), buffer)?;
        Ok(values.block_sums())
    };
    let blocks: Vec<_> = (0..len.div_ceil(BLOCK)).into_par_iter().map_init(Vec::new, of).collect();
    blocks.into_iter().try_fold((0.0, 0.0), |t, s| s.map(|s: (f64, f64)| (t.0 + s.0, t.1 + s.1)))
}
