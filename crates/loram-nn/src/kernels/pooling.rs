//! Means over the rows of sequences, which stand one after another.

use super::{
    Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};
use std::ops::Range;

/// The rows of each sequence.
fn sequences(lengths: &[usize]) -> Vec<Range<usize>> {
    let mut start = 0;
    let next = |&n: &usize| {
        start += n;
        start - n..start
    };
    lengths.iter().map(next).collect()
}

/// Row s of y (sequences × cols) is the mean of the rows of sequence s of x (tokens × cols); 0 for a sequence without any.
pub fn mean_rows<T: Real>(x: &[T], lengths: &[usize], y: &mut [T], cols: usize) {
    let rows = sequences(lengths);
    assert_eq!(y.len(), rows.len() * cols, "mean_rows: outputs");
    assert_eq!(x.len(), rows.last().map_or(0, |r| r.end) * cols, "mean_rows: inputs");
    let width = x.len() / rows.len().max(1);
    for_rows(RowsMut(y, cols), rows.len(), width, |y, at| {
        for (y, rows) in y.0.chunks_exact_mut(cols.max(1)).zip(&rows[at]) {
            let share = T::from_f64(1.0 / rows.len().max(1) as f64);
            simd(
                #[inline(always)]
                || {
                    y.fill(T::ZERO);
                    for row in x[rows.start * cols..rows.end * cols].chunks_exact(cols.max(1)) {
                        y.iter_mut().zip(row).for_each(|(y, &x)| *y += x);
                    }
                    y.iter_mut().for_each(|y| *y *= share);
                },
            );
        }
    });
}

/// Gradient of [`mean_rows`]: the rows of sequence s of dx (tokens × cols) are row s of dy, divided by their number.
pub fn mean_rows_backward<T: Real>(dy: &[T], lengths: &[usize], dx: &mut [T], cols: usize) {
    let owner: Vec<(usize, T)> = lengths
        .iter()
        .enumerate()
        .flat_map(|(s, &n)| std::iter::repeat_n((s, T::from_f64(1.0 / n.max(1) as f64)), n))
        .collect();
    assert_eq!(dy.len(), lengths.len() * cols, "mean_rows_backward: gradients");
    assert_eq!(dx.len(), owner.len() * cols, "mean_rows_backward: outputs");
    for_rows((RowsMut(dx, cols), Rows(&owner, 1)), owner.len(), cols, |(dx, owner), _| {
        for (dx, &(s, share)) in dx.0.chunks_exact_mut(cols.max(1)).zip(owner.0) {
            dx.iter_mut().zip(&dy[s * cols..]).for_each(|(d, &g)| *d = g * share);
        }
    });
}
