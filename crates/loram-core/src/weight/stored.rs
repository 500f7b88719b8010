//! A matrix of stored weights.

use super::bytes::WeightBytes;
use super::float32::Float32;
use super::format::{WeightElement, WeightFormat};
use super::order::RowOrder;
use rayon::prelude::*;
use std::borrow::Cow;
use std::ops::Range;

/// Values converted or summed by one task; a constant, so that sums do not depend on the number of threads.
const BLOCK: usize = 1 << 16;

/// A weight (rows, cols) = (out_features, in_features), row-major, in the format in which it is stored: in memory, or with
/// another `B` in a file that is read piece by piece.
#[derive(Debug, Clone, Copy)]
pub struct StoredWeight<'a, B = &'a [u8]> {
    format: &'a dyn WeightFormat,
    bytes: B,
    rows: usize,
    cols: usize,
    order: RowOrder,
}

/// Rows of a tile that are read with one call.
const TILE_ROWS: usize = 32;

impl<'a, B: WeightBytes> StoredWeight<'a, B> {
    /// A weight of `bytes` in `format`. Panics when they are not those of rows × cols values, each row whole blocks.
    pub fn new(format: &'a dyn WeightFormat, bytes: B, rows: usize, cols: usize) -> StoredWeight<'a, B> {
        let name = format.name();
        assert!(cols.is_multiple_of(format.block_values()), "rows of {cols} values in blocks of {name}");
        assert_eq!(bytes.len(), format.bytes_of(rows * cols), "bytes of a {rows}×{cols} weight in {name}");
        StoredWeight { format, bytes, rows, cols, order: RowOrder::Plain }
    }

    /// The same weight, whose bytes hold its rows in another order. For formats whose blocks hold all that they need. Panics where the
    /// number of rows does not go with the order.
    #[must_use]
    pub fn with_order(self, order: RowOrder) -> Self {
        assert!(order.fits(self.rows), "{} rows in the order {order:?}", self.rows);
        StoredWeight { order, ..self }
    }

    /// The order in which the bytes hold the rows.
    pub fn order(&self) -> RowOrder {
        self.order
    }

    /// Output features.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.rows * self.cols
    }

    /// True when there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The format of the values.
    pub fn format(&self) -> &'a dyn WeightFormat {
        self.format
    }

    /// Σx and Σx² in f64, in one pass; the same bits for any place, any number of threads and any vector unit. The second
    /// is finite exactly when all values are. The error is that of the first piece that cannot be read.
    pub fn try_sums(&self) -> Result<(f64, f64), B::Error> {
        let len = self.len();
        let of = |buffer: &mut Vec<u8>, b: usize| {
            let at = b * BLOCK..((b + 1) * BLOCK).min(len);
            Ok(self.format.sums(at.start, self.fetch(at, buffer)?))
        };
        let blocks: Vec<_> = (0..len.div_ceil(BLOCK)).into_par_iter().map_init(Vec::new, of).collect();
        blocks.into_iter().try_fold((0.0, 0.0), |t, s| s.map(|s: (f64, f64)| (t.0 + s.0, t.1 + s.1)))
    }

    /// Converts the values `at`, whole blocks, into `out`, through `buffer` where bytes are read from a file. Panics when the numbers
    /// differ, like a slice. The error is that of reading.
    pub fn try_read(&self, at: Range<usize>, out: &mut [f32], buffer: &mut Vec<u8>) -> Result<(), B::Error> {
        assert_eq!(at.len(), out.len(), "values and places for them");
        self.format.read(at.start, self.fetch(at, buffer)?, out);
        Ok(())
    }

    /// Returns the bytes of the values `at`, in the order of the rows' numbers: in place, or as read into `buffer`.
    pub(crate) fn fetch<'b>(&'b self, at: Range<usize>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8], B::Error> {
        if self.order == RowOrder::Plain {
            return self.bytes.fetch(self.bytes_at(at), buffer);
        }
        let mut piece = Vec::new();
        buffer.clear();
        for at in self.pieces(at) {
            buffer.extend_from_slice(self.bytes.fetch(self.bytes_at(at), &mut piece)?);
        }
        Ok(buffer)
    }

    /// Where the values `at` are stored, piece after piece.
    fn pieces(&self, at: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<B> {
        let (order, cols, mut next) = (self.order, self.cols, at.start);
        std::iter::from_fn(move || {
            let first = next;
            if first >= at.end {
                return None;
            }
            if order == RowOrder::Plain {
                next = at.end;
                return Some(at.clone());
            }
            let row = first / cols;
            next = at.end.min((row + 1) * cols);
            let stored = order.place(row) * cols + first % cols;
            Some(stored..stored + next - first)
        })
    }

    /// Bytes of stored values.
    fn bytes_at(&self, at: Range<usize>) -> Range<usize> {
        self.format.bytes_of(at.start)..self.format.bytes_of(at.end)
    }
}

impl<'a> StoredWeight<'a> {
    /// A weight of numbers in memory. Panics when they are not rows × cols.
    pub fn of<T: WeightElement>(values: &'a [T], rows: usize, cols: usize) -> StoredWeight<'a> {
        StoredWeight::new(T::FORMAT, bytemuck::cast_slice(values), rows, cols)
    }

    /// The stored bytes, with the rows in their [`order`](StoredWeight::order).
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Converts the values `at`, whole blocks, into `out`. Panics when the numbers differ, like a slice.
    pub fn read(&self, at: Range<usize>, mut out: &mut [f32]) {
        assert_eq!(at.len(), out.len(), "values and places for them");
        for at in self.pieces(at) {
            let piece = out.split_off_mut(..at.len()).expect("as many places as values");
            self.format.read(at.start, &self.bytes[self.bytes_at(at)], piece);
        }
    }

    /// Converts `columns`, whole blocks, of `rows` into a matrix with `stride` values from one row to the next. Panics
    /// where `out` is too short.
    pub fn read_tile(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [f32], stride: usize) {
        let mut places = out.chunks_mut(stride.max(1));
        let (mut next, at_once) = (rows.start, if self.order == RowOrder::Plain { TILE_ROWS } else { 1 });
        while next < rows.end {
            let n = at_once.min(rows.end - next);
            let mut places: [&mut [f32]; TILE_ROWS] =
                std::array::from_fn(|i| if i < n { places.next().unwrap_or_default() } else { &mut [] });
            let first = self.order.place(next) * self.cols;
            let bytes = &self.bytes[self.bytes_at(first..first + n * self.cols)];
            self.format.read_columns(first, bytes, self.cols, columns.clone(), &mut places[..n]);
            next += n;
        }
    }

    /// The values in place, when they are stored in f32 and in order, and their address is aligned.
    pub fn as_f32(&self) -> Option<&'a [f32]> {
        let as_they_are = self.format.name() == Float32.name() && self.order == RowOrder::Plain;
        as_they_are.then(|| bytemuck::try_cast_slice(self.bytes).ok()).flatten()
    }

    /// All values in f32; without a copy where [`as_f32`](StoredWeight::as_f32) has them.
    pub fn to_f32(&self) -> Cow<'a, [f32]> {
        match self.as_f32() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(self.to_vec()),
        }
    }

    /// A copy of all values in f32.
    pub fn to_vec(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.len()];
        out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, o)| self.read(i * BLOCK..i * BLOCK + o.len(), o));
        out
    }

    /// [`try_sums`](StoredWeight::try_sums) of values in memory.
    pub fn sums(&self) -> (f64, f64) {
        let Ok(sums) = self.try_sums();
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn values(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 2654435761) % 1000003) as f32 / 500001.5 - 1.0).collect()
    }

    fn row<T: WeightElement>(values: &[T]) -> StoredWeight<'_> {
        StoredWeight::of(values, 1, values.len())
    }

    #[test]
    fn sums_of_all_formats() {
        for len in [0, 1, 15, 17, 2047, 2049, 70_000, 200_001] {
            let x = values(len);
            let h: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
            let b: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            let d: Vec<f64> = x.iter().map(|&x| f64::from(x) * 1.1).collect();
            for (w, list) in [
                (row(&x), x.clone()),
                (row(&h), h.iter().map(|x| x.to_f32()).collect()),
                (row(&b), b.iter().map(|x| x.to_f32()).collect()),
                (row(&d), d.iter().map(|x| *x as f32).collect()),
            ] {
                let (sum, squares) = w.sums();
                let want: (f64, f64) =
                    list.iter().fold((0.0, 0.0), |t, &x| (t.0 + f64::from(x), t.1 + f64::from(x).powi(2)));
                assert!((sum - want.0).abs() < 1e-9 && (squares - want.1).abs() < 1e-9 * want.1.max(1.0), "{len}");
                assert_eq!(w.to_f32().as_ref(), &list[..]);
                assert_eq!(row(&list).sums(), (sum, squares), "the same bits as of the converted values");
            }
        }
    }

    #[test]
    fn bytes_at_any_address() {
        let x = values(3000);
        let h: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
        let b: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
        for w in [row(&x), row(&h), row(&b)] {
            let shifted = [&[0], w.bytes()].concat();
            let shifted = StoredWeight::new(w.format(), &shifted[1..], 1, w.cols());
            assert!(shifted.as_f32().is_none() && shifted.sums() == w.sums() && shifted.to_f32() == w.to_f32());
        }
    }

    #[test]
    fn infinite_values_show_in_the_squares() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = values(5000);
            x[4321] = bad;
            assert!(!row(&x).sums().1.is_finite());
            let b: Vec<bf16> = x.iter().map(|&x| bf16::from_f32(x)).collect();
            assert!(!row(&b).sums().1.is_finite());
        }
        assert!(row(&[f32::MAX; 100]).sums().1.is_finite());
    }

    #[test]
    fn rows_in_another_order_are_read_by_their_numbers() {
        let (rows, cols, head_dim) = (24, 70, 6);
        let order = RowOrder::Interleaved { head_dim };
        let x = values(rows * cols);
        // numpy: reshape(h, 2, d/2, m).swapaxes(1, 2)
        let mut stored = Vec::new();
        for head in 0..rows / head_dim {
            for j in 0..head_dim / 2 {
                for half in 0..2 {
                    let row = head * head_dim + half * head_dim / 2 + j;
                    stored.extend_from_slice(&x[row * cols..(row + 1) * cols]);
                }
            }
        }
        let (plain, other) = (StoredWeight::of(&x, rows, cols), StoredWeight::of(&stored, rows, cols));
        let other = other.with_order(order);
        assert!(other.as_f32().is_none());
        assert_eq!(other.to_vec(), x);
        assert_eq!(other.sums(), plain.sums(), "the same bits");
        for at in [0..0, 5..6, 65..75, 3..700, 139..141, 0..rows * cols] {
            let mut out = vec![0.0; at.len()];
            other.read(at.clone(), &mut out);
            assert_eq!(out, x[at.clone()]);
            let (mut one, mut two) = (Vec::new(), Vec::new());
            assert_eq!(other.fetch(at.clone(), &mut one), plain.fetch(at, &mut two));
        }
        for (w, rows, columns) in [(&plain, 0..24, 3..64), (&other, 5..18, 0..70), (&other, 3..4, 8..9)] {
            let (mut out, stride) = (vec![f32::NAN; rows.len() * 80], 80);
            w.read_tile(rows.clone(), columns.clone(), &mut out, stride);
            for (out, row) in out.chunks(stride).zip(rows) {
                assert_eq!(out[..columns.len()], x[row * cols..][columns.clone()]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "bytes of a 2×4 weight in BF16")]
    fn bytes_of_another_shape() {
        let _ = StoredWeight::of(&[bf16::ONE; 6], 2, 4);
    }
}
