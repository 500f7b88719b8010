//! How the bytes of a weight become values.

use super::codes::FourBitParts;
use super::sums::{PIECE, Sums, prefetch};
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;

/// A format in which weights are stored. A new format is a file beside this one with [`decode`](WeightFormat::decode);
/// sums, panels, tiles and gathers are compiled from it once for each format, for the vector unit of the machine, so
/// that a call through `dyn WeightFormat` costs one jump for a whole piece of a weight.
///
/// Values are stored in blocks along a row, and a row is a whole number of blocks. All positions count values of the
/// whole weight, row-major, and lie between two blocks: a format with scales in another tensor finds them by `first`.
pub trait WeightFormat: Debug + Send + Sync {
    /// Name of the type in a checkpoint, e.g. `BF16`.
    fn name(&self) -> &'static str;

    /// Number of values in a block: 1 for plain numbers. Divides 512.
    fn block_values(&self) -> usize {
        1
    }

    /// Bytes of a block.
    fn block_bytes(&self) -> usize;

    /// True for integers of a few bits with scales, as opposed to plain numbers.
    fn is_quantised(&self) -> bool {
        self.block_values() > 1
    }

    /// The parts of a weight in NF4 or FP4, for a decoder elsewhere.
    fn four_bit(&self) -> Option<FourBitParts<'_>> {
        None
    }

    /// The format of the values from number `first` on, for a part of a weight. `None` where values depend on their place and the format
    /// cannot be cut.
    fn cut_at(&self, first: usize) -> Option<Arc<dyn WeightFormat>> {
        let _ = first;
        None
    }

    /// Converts whole blocks. `first` is the position of their first value. Implementations are `#[inline(always)]`, so
    /// that their loops are compiled for the caller's vector unit; bytes may have any alignment.
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]);

    /// Adds the values of whole blocks, at most 1024 of them, to `sums`. To be overridden (with `#[inline(always)]`) where
    /// values can be summed without a copy.
    #[inline(always)]
    fn add_to(&self, first: usize, bytes: &[u8], sums: &mut Sums) {
        sums.add_decoded(
            self.values_in(bytes.len()),
            #[inline(always)]
            |piece| self.decode(first, bytes, piece),
        );
    }

    /// Number of values in so many bytes.
    #[inline(always)]
    fn values_in(&self, bytes: usize) -> usize {
        bytes / self.block_bytes() * self.block_values()
    }

    /// Bytes of so many values, which must be whole blocks.
    #[inline(always)]
    fn bytes_of(&self, values: usize) -> usize {
        debug_assert!(values.is_multiple_of(self.block_values()), "{values} values of {}", self.name());
        values / self.block_values() * self.block_bytes()
    }

    /// Converts the values of whole blocks into `out`. Panics when their numbers differ, like a slice.
    fn read(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(self.values_in(bytes.len()), out.len(), "values of {} and places for them", self.name());
        simd(
            #[inline(always)]
            || self.decode(first, bytes, out),
        );
    }

    /// Converts `columns` of neighbouring rows of `cols` values each, of which `first` is the first value and `bytes` are
    /// all bytes: those of row i into `out[i]`.
    fn read_columns(&self, first: usize, bytes: &[u8], cols: usize, columns: Range<usize>, out: &mut [&mut [f32]]) {
        simd(
            #[inline(always)]
            || {
                for (i, out) in out.iter_mut().enumerate() {
                    let at = i * cols + columns.start..i * cols + columns.end;
                    let bytes = &bytes[self.bytes_of(at.start)..self.bytes_of(at.end)];
                    self.decode(first + at.start, bytes, &mut out[..columns.len()]);
                }
            },
        );
    }

    /// Σx and Σx² of the values of whole blocks in f64, by this thread.
    fn sums(&self, first: usize, bytes: &[u8]) -> (f64, f64) {
        simd(
            #[inline(always)]
            || {
                let mut sums = Sums::new();
                let mut at = 0;
                while at < bytes.len() {
                    let len = self.bytes_of(PIECE).min(bytes.len() - at);
                    prefetch(bytes, at + len, len);
                    self.add_to(first + self.values_in(at), &bytes[at..at + len], &mut sums);
                    at += len;
                }
                sums.total()
            },
        )
    }
}

/// A number type that is a format by itself.
pub trait WeightElement: bytemuck::Pod {
    /// The format.
    const FORMAT: &'static dyn WeightFormat;
}

/// Runs `f` compiled for the widest vector unit of this machine. `f` must be `#[inline(always)]`, as everything in it that
/// is to profit.
#[inline(always)]
fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}
