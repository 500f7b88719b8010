//! A layer's weight as it lies in memory, in any of the stored types, and its sums in one pass.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// A weight (rows, cols) = (out_features, in_features) in f32, row-major.
#[derive(Debug, Clone, Copy)]
pub struct MatRef<'a> {
    /// The values.
    pub data: &'a [f32],
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

/// Values in the type in which a checkpoint stores them.
#[derive(Debug, Clone, Copy)]
pub enum WeightRef<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// bfloat16.
    BF16(&'a [bf16]),
}

/// A weight (rows, cols) in its stored type, row-major.
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    /// The values.
    pub data: WeightRef<'a>,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
}

impl<'a> From<MatRef<'a>> for Weight<'a> {
    fn from(w: MatRef<'a>) -> Weight<'a> {
        Weight { data: WeightRef::F32(w.data), rows: w.rows, cols: w.cols }
    }
}

/// Values converted by one task.
const BLOCK: usize = 1 << 16;
/// Values converted at once, small enough for the first cache.
const PIECE: usize = 1024;
/// Partial sums, a constant for the same reason: as many as hide the delay of an addition, a whole number of vectors on every
/// machine.
const LANES: usize = 32;

impl<'a> WeightRef<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            WeightRef::F32(x) => x.len(),
            WeightRef::F16(x) => x.len(),
            WeightRef::BF16(x) => x.len(),
        }
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in `at`, converted into `out`. Panics when the lengths differ, like a slice.
    pub fn read(&self, at: Range<usize>, out: &mut [f32]) {
        match self {
            WeightRef::F32(x) => out.copy_from_slice(&x[at]),
            WeightRef::F16(x) => x[at].convert_to_f32_slice(out),
            WeightRef::BF16(x) => {
                let x = &x[at];
                assert_eq!(x.len(), out.len());
                out.iter_mut().zip(x).for_each(|(o, x)| *o = bf16_to_f32(*x));
            }
        }
    }

    /// The values in `at`.
    pub fn part(&self, at: Range<usize>) -> WeightRef<'a> {
        match *self {
            WeightRef::F32(x) => WeightRef::F32(&x[at]),
            WeightRef::F16(x) => WeightRef::F16(&x[at]),
            WeightRef::BF16(x) => WeightRef::BF16(&x[at]),
        }
    }

    /// All values in f32; no copy when they are f32.
    pub fn to_f32(&self) -> Cow<'a, [f32]> {
        if let WeightRef::F32(x) = *self {
            return Cow::Borrowed(x);
        }
        let mut out = vec![0.0; self.len()];
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, o)| self.read(i * BLOCK..i * BLOCK + o.len(), o));
        Cow::Owned(out)
    }

    /// [`sums`](crate::sums) of values in memory.
    pub fn sums(&self) -> (f64, f64) {
        let Ok(sums) = crate::source::sums(self);
        sums
    }

    /// Σx and Σx² of these values alone, by this thread.
    pub(crate) fn block_sums(self) -> (f64, f64) {
        pulp::Arch::new().dispatch(BlockSums { values: self })
    }
}

/// The sums of a block. A type of its own, because a closure is not inlined where the vector unit is known.
struct BlockSums<'a> {
    values: WeightRef<'a>,
}

impl pulp::NullaryFnOnce for BlockSums<'_> {
    type Output = (f64, f64);

    #[inline(always)]
    fn call(self) -> (f64, f64) {
        let mut sums = Sums::new();
        let mut piece = [0.0f32; PIECE];
        let mut start = 0;
        while start < self.values.len() {
            let len = PIECE.min(self.values.len() - start);
            let here = start..start + len;
            match self.values {
                WeightRef::F32(x) => {
                    prefetch(x, here.end + AHEAD / 4, len);
                    sums.add(&x[here], |x| x);
                }
                WeightRef::F16(x) => {
                    prefetch(x, here.end + AHEAD / 2, len);
                    x[here].convert_to_f32_slice(&mut piece[..len]);
                    sums.add(&piece[..len], |x| x);
                }
                WeightRef::BF16(x) => {
                    prefetch(x, here.end + AHEAD / 2, len);
                    sums.add(&x[here], bf16_to_f32);
                }
            }
            start += len;
        }
        sums.total()
    }
}

/// How far ahead of the sums the values are fetched, in bytes.
const AHEAD: usize = 16 << 10;

/// Fetches `x[at..at + len]` into the cache as far as it exists. The processor's own prefetching ends at the pages of a
/// mapped file, 4 KiB each, and starts anew with the delay of a page walk: without this, that delay is most of the time.
#[inline(always)]
fn prefetch<T>(x: &[T], at: usize, len: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in x.get(at..(at + len).min(x.len())).unwrap_or_default().chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint about an address inside the slice; nothing is read
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (x, at, len);
}

/// Exact, and (unlike `half`'s own loop) inlined where the caller's vector unit is known.
#[inline(always)]
pub(crate) fn bf16_to_f32(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

/// Partial sums Σx and Σx² in f64.
struct Sums {
    sum: [f64; LANES],
    squares: [f64; LANES],
}

impl Sums {
    #[inline(always)]
    fn new() -> Sums {
        Sums { sum: [0.0; LANES], squares: [0.0; LANES] }
    }

    /// Adds values; between calls, whole multiples of [`LANES`].
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

    fn total(&self) -> (f64, f64) {
        (self.sum.iter().sum(), self.squares.iter().sum())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 2654435761) % 1000003) as f32 / 500001.5 - 1.0).collect()
    }

    #[test]
    fn sums_of_all_types() {
        for len in [0, 1, 15, 17, 2047, 2049, 70_000, 200_001] {
            let x = values(len);
            let h: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
            let b: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            for (w, list) in [
                (WeightRef::F32(&x), x.clone()),
                (WeightRef::F16(&h), h.iter().map(|x| x.to_f32()).collect()),
                (WeightRef::BF16(&b), b.iter().map(|x| x.to_f32()).collect()),
            ] {
                let (sum, squares) = w.sums();
                let want: (f64, f64) =
                    list.iter().fold((0.0, 0.0), |t, &x| (t.0 + f64::from(x), t.1 + f64::from(x).powi(2)));
                assert!((sum - want.0).abs() < 1e-9 && (squares - want.1).abs() < 1e-9 * want.1.max(1.0), "{len}");
                assert_eq!(w.to_f32().as_ref(), &list[..]);
            }
        }
    }

    #[test]
    fn infinite_values_show_in_the_squares() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(5000);
            x[4321] = bad;
            assert!(!WeightRef::F32(&x).sums().1.is_finite());
            let b: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            assert!(!WeightRef::BF16(&b).sums().1.is_finite());
        }
        assert!(WeightRef::F32(&[f32::MAX; 100]).sums().1.is_finite());
    }
}
