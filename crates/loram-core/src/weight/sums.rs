//! Partial sums of values.

/// Partial sums, a constant, so that the result does not depend on the vector unit: as many as hide the delay of an
/// addition, a whole number of vectors on every machine.
const LANES: usize = 32;

/// Values that are summed at a time, few enough for the first cache.
pub(super) const PIECE: usize = 1024;

/// How far ahead of the sums the values are fetched, in bytes.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 16 << 10;

/// Fetches `len` bytes that lie [`AHEAD`] bytes behind `from` into the cache, as far as they exist. The processor's own
/// prefetching ends at the pages of a mapped file, 4 KiB each, and starts anew with the delay of a page walk: without
/// this, that delay is most of the time.
#[inline(always)]
pub(super) fn prefetch(bytes: &[u8], from: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.get(from + AHEAD..(from + AHEAD + len).min(bytes.len())).unwrap_or_default().chunks(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about an address inside the slice; nothing is read
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (bytes, from, len);
}

/// Partial sums Σx and Σx² in f64.
#[derive(Debug)]
pub struct Sums {
    lanes: Lanes,
    /// Values on their way into the sums.
    piece: [f32; PIECE],
}

#[derive(Debug)]
struct Lanes {
    sum: [f64; LANES],
    squares: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    pub(super) fn new() -> Sums {
        Sums { lanes: Lanes { sum: [0.0; LANES], squares: [0.0; LANES] }, piece: [0.0; PIECE] }
    }

    /// Adds values. Which lane a value is added to counts from the beginning of each call.
    #[inline(always)]
    pub fn add<T: Copy>(&mut self, x: &[T], to_f32: impl Fn(T) -> f32) {
        self.lanes.add(x, to_f32);
    }

    /// Adds `len` values, at most 1024, that `decode` writes.
    #[inline(always)]
    pub fn add_decoded(&mut self, len: usize, decode: impl FnOnce(&mut [f32])) {
        let piece = &mut self.piece[..len];
        decode(piece);
        self.lanes.add(piece, |x| x);
    }

    #[inline(always)]
    pub(super) fn total(&self) -> (f64, f64) {
        (self.lanes.sum.iter().sum(), self.lanes.squares.iter().sum())
    }
}

impl Lanes {
    #[inline(always)]
    fn add<T: Copy>(&mut self, x: &[T], to_f32: impl Fn(T) -> f32) {
        let (whole, rest) = x.as_chunks::<LANES>();
        let mut last = [0.0; LANES];
        last.iter_mut().zip(rest).for_each(|(o, x)| *o = to_f32(*x));
        // Copies that stay in registers, as long as no index of theirs is a variable, and one loop over the lanes: the compiler
        // vectorises this form and hardly any other.
        let (mut sum, mut squares) = (self.sum, self.squares);
        for c in whole {
            add_lanes(&mut sum, &mut squares, |l| to_f32(c[l]));
        }
        if !rest.is_empty() {
            add_lanes(&mut sum, &mut squares, |l| last[l]);
        }
        (self.sum, self.squares) = (sum, squares);
    }
}

#[inline(always)]
fn add_lanes(sum: &mut [f64; LANES], squares: &mut [f64; LANES], x: impl Fn(usize) -> f32) {
    for l in 0..LANES {
        let v = f64::from(x(l));
        sum[l] += v;
        // no fused multiply-add, so that older machines get the same bits
        squares[l] += v * v;
    }
}
