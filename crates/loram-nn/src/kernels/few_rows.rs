//! Products of a few rows with a stored weight, as generation has them. Such a product reads every element of the weight for one or
//! two multiplications: it is as quick as the weight comes out of memory, unless more is done with the elements than to convert
//! them where they are used.

use super::par::{RowsMut, for_rows};
use super::simd::{LANES, dot, simd, total};
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

/// The products of each row of `w` with each row of `x`, all of length m: two rows of `w` with two of `x` at a time, so that a value that
/// is loaded is used twice. The bits are those of [`dot`], whatever the number of rows.
#[inline(always)]
fn dots(w: &[f32], x: &[f32], m: usize, out: &mut [f32]) {
    let t = x.len() / m;
    let mut pairs = w.chunks_exact(2 * m).zip(out.chunks_exact_mut(2 * t));
    for (w, out) in &mut pairs {
        let (w0, w1) = w.split_at(m);
        let mut j = 0;
        while j + 2 <= t {
            let x = [&x[j * m..(j + 1) * m], &x[(j + 1) * m..(j + 2) * m]];
            let [[a, b], [c, d]] = four([w0, w1], x);
            (out[j], out[j + 1], out[t + j], out[t + j + 1]) = (a, b, c, d);
            j += 2;
        }
        if j < t {
            let x = &x[j * m..(j + 1) * m];
            (out[j], out[t + j]) = (dot(x, w0), dot(x, w1));
        }
    }
    let rows = w.len() / m;
    if rows % 2 == 1 {
        let w = &w[(rows - 1) * m..];
        for (j, out) in out[(rows - 1) * t..].iter_mut().enumerate() {
            *out = dot(&x[j * m..(j + 1) * m], w);
        }
    }
}

/// The products of two rows with two others, each as [`dot`] adds it.
#[inline(always)]
fn four(w: [&[f32]; 2], x: [&[f32]; 2]) -> [[f32; 2]; 2] {
    let mut acc = [[[0.0f32; LANES]; 2]; 2];
    let [(w0, wr0), (w1, wr1)] = w.map(|w| w.as_chunks::<LANES>());
    let [(x0, xr0), (x1, xr1)] = x.map(|x| x.as_chunks::<LANES>());
    for (((w0, w1), x0), x1) in w0.iter().zip(w1).zip(x0).zip(x1) {
        add(&mut acc, [w0, w1], [x0, x1]);
    }
    // filled up with zeros, as in `dot`
    let filled = |rest: &[f32]| {
        let mut out = [0.0; LANES];
        out[..rest.len()].copy_from_slice(rest);
        out
    };
    add(&mut acc, [&filled(wr0), &filled(wr1)], [&filled(xr0), &filled(xr1)]);
    acc.map(|row| row.map(total))
}

#[inline(always)]
fn add(acc: &mut [[[f32; LANES]; 2]; 2], w: [&[f32; LANES]; 2], x: [&[f32; LANES]; 2]) {
    for l in 0..LANES {
        acc[0][0][l] = x[0][l].mul_add(w[0][l], acc[0][0][l]);
        acc[0][1][l] = x[1][l].mul_add(w[0][l], acc[0][1][l]);
        acc[1][0][l] = x[0][l].mul_add(w[1][l], acc[1][0][l]);
        acc[1][1][l] = x[1][l].mul_add(w[1][l], acc[1][1][l]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn products_are_those_of_the_converted_weight() {
        for (t, n, m) in [(1, 1, 1), (1, 700, 33), (2, 7, 31), (3, 129, 64), (4, 5, 5000), (4, 6, 97)] {
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

    #[test]
    fn the_bits_do_not_depend_on_the_number_of_rows() {
        let (n, m) = (37, 577);
        let w: Vec<bf16> = (0..n * m).map(|i| bf16::from_f32((i as f32 * 0.37).sin())).collect();
        let x: Vec<f32> = (0..4 * m).map(|i| (i as f32 * 0.11).cos()).collect();
        let of = |t: usize| {
            let mut y = vec![0.0; t * n];
            add_few_rows_t(StoredWeight::of(&w, n, m), &x[..t * m], &mut y);
            y
        };
        for t in 1..4 {
            assert_eq!(of(t), of(4)[..t * n], "{t} rows");
        }
    }
}
