//! Products of a few rows with a stored weight, as generation has them. Such a product reads every element of the weight for one or
//! two multiplications: it is as quick as the weight comes out of memory, unless more is done with the elements than to convert
//! them where they are used.

use super::par::{RowsMut, for_rows};
use super::simd::{dot, simd};
use loram_core::StoredWeight;

/// Rows up to which this is faster than packing the weight.
pub const FEW: usize = 4;

/// Converted values at a time, few enough for the first cache.
const PIECE: usize = 4096;

/// y (t × n) += x·Wᵀ for x (t × m) and W (n × m), all row-major, in f32. The bits do not depend on the number of threads.
pub fn add_few_rows_t(weight: StoredWeight<'_>, x: &[f32], y: &mut [f32]) {
    let (n, m) = (weight.rows(), weight.cols());
    if n == 0 || m == 0 || x.is_empty() {
        return;
    }
    let t = x.len() / m;
    assert!(x.len() == t * m && y.len() == t * n, "({t}, {m}) times ({n}, {m}) transposed");
    // by rows of the weight, which are columns of y
    let mut sums = vec![0.0; n * t];
    let at_once = (PIECE / m).max(1);
    for_rows(RowsMut(&mut sums, t), n, m, |out, rows| {
        let mut values = vec![0.0; at_once * m];
        for (piece, out) in out.0.chunks_mut(at_once * t).enumerate() {
            let first = rows.start + piece * at_once;
            let values = &mut values[..out.len() / t * m];
            weight.read(first * m..first * m + values.len(), values);
            simd(
                #[inline(always)]
                || dots(values, x, m, out),
            );
        }
    });
    for (row, y) in y.chunks_exact_mut(n).enumerate() {
        y.iter_mut().zip(sums[row..].iter().step_by(t)).for_each(|(y, s)| *y += s);
    }
}

/// The products of each row of `w` with each row of `x`, all of length m.
#[inline(always)]
fn dots(w: &[f32], x: &[f32], m: usize, out: &mut [f32]) {
    let t = x.len() / m;
    for i in 0..w.len() / m {
        for j in 0..t {
            out[i * t + j] = dot(&x[j * m..(j + 1) * m], &w[i * m..(i + 1) * m]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn products_are_those_of_the_converted_weight() {
        for (t, n, m) in [(1, 1, 1), (1, 700, 33), (3, 129, 64), (4, 5, 5000)] {
            let w: Vec<bf16> = (0..n * m).map(|i| bf16::from_f32(((i * 37) % 64) as f32 - 31.0)).collect();
            let x: Vec<f32> = (0..t * m).map(|i| ((i * 11) % 16) as f32 - 7.0).collect();
            let mut y = vec![1.0; t * n];
            add_few_rows_t(StoredWeight::of(&w, n, m), &x, &mut y);
            for (i, y) in y.iter().enumerate() {
                let (row, col) = (i / n, i % n);
                let sum: f32 = (0..m).map(|k| x[row * m + k] * w[col * m + k].to_f32()).sum();
                // integers, all exact
                assert_eq!(*y, 1.0 + sum, "({row}, {col}) of {t}×{n}×{m}");
            }
        }
    }
}
