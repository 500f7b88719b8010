//! Small operations on slices: sums, scaling, biases, norms of gradients, dropout.

use super::{
    Real,
    par::{GRAIN, Rows, RowsMut, Shared, for_rows, for_units},
    simd::simd,
};

/// Columns that one unit of the weight gradient works on: a run of cache lines.
const COLUMN_BLOCK: usize = 64;

/// y += x.
pub fn add_assign<T: Real>(y: &mut [T], x: &[T]) {
    assert_eq!(y.len(), x.len(), "add_assign");
    let n = y.len();
    for_rows((RowsMut(y, 1), Rows(x, 1)), n, 1, |(y, x), _| {
        simd(
            #[inline(always)]
            || {
                for (y, &x) in y.0.iter_mut().zip(x.0) {
                    *y += x;
                }
            },
        );
    });
}

/// y += a·x.
pub fn axpy<T: Real>(y: &mut [T], a: T, x: &[T]) {
    assert_eq!(y.len(), x.len(), "axpy");
    let n = y.len();
    for_rows((RowsMut(y, 1), Rows(x, 1)), n, 1, |(y, x), _| {
        simd(
            #[inline(always)]
            || {
                for (y, &x) in y.0.iter_mut().zip(x.0) {
                    *y = x.mul_add(a, *y);
                }
            },
        );
    });
}

/// y ← a·y.
pub fn scale<T: Real>(y: &mut [T], a: T) {
    let n = y.len();
    for_rows(RowsMut(y, 1), n, 1, |y, _| {
        simd(
            #[inline(always)]
            || {
                for y in y.0 {
                    *y *= a;
                }
            },
        );
    });
}

/// Add `bias` (cols) to every row of `y` (rows × cols).
pub fn add_bias<T: Real>(y: &mut [T], bias: &[T], rows: usize, cols: usize) {
    assert_eq!((y.len(), bias.len()), (rows * cols, cols), "add_bias");
    for_rows(RowsMut(y, cols), rows, cols, |y, r| {
        simd(
            #[inline(always)]
            || {
                for i in 0..r.len() {
                    for (y, &b) in y.0[i * cols..(i + 1) * cols].iter_mut().zip(bias) {
                        *y += b;
                    }
                }
            },
        );
    });
}

/// Write `bias` (cols) to every row of `y` (rows × cols): the start of a product that accumulates.
pub fn fill_bias<T: Real>(y: &mut [T], bias: &[T], rows: usize, cols: usize) {
    assert_eq!((y.len(), bias.len()), (rows * cols, cols), "fill_bias");
    for_rows(RowsMut(y, cols), rows, cols, |y, r| {
        for i in 0..r.len() {
            y.0[i * cols..(i + 1) * cols].copy_from_slice(bias);
        }
    });
}

/// db += Σ rows of `dy` (rows × cols), rows in order.
pub fn bias_grad<T: Real>(dy: &[T], db: &mut [T], rows: usize, cols: usize) {
    assert_eq!((dy.len(), db.len()), (rows * cols, cols), "bias_grad");
    column_sums(rows, cols, db, |i, from, out| {
        let at = i * cols + from;
        let end = at + out.len();
        for (o, &g) in out.iter_mut().zip(&dy[at..end]) {
            *o += g;
        }
    });
}

/// Calls `add(row, first column, block)` for the rows in order, in parallel over blocks of columns, and adds the blocks to
/// `out`.
pub(super) fn column_sums<T: Real>(
    rows: usize,
    cols: usize,
    out: &mut [T],
    add: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let grain = (GRAIN / (rows * COLUMN_BLOCK).max(1)).max(1);
    let out = Shared::new(out);
    for_units(cols.div_ceil(COLUMN_BLOCK), grain, |unit| {
        let from = unit * COLUMN_BLOCK;
        // SAFETY: blocks of columns do not overlap
        let target = unsafe { out.slice(from..(from + COLUMN_BLOCK).min(cols)) };
        simd(
            #[inline(always)]
            || {
                let mut block = [T::ZERO; COLUMN_BLOCK];
                let block = &mut block[..target.len()];
                for i in 0..rows {
                    add(i, from, block);
                }
                for (t, &b) in target.iter_mut().zip(block.iter()) {
                    *t += b;
                }
            },
        );
    });
}

/// Σ xᵢ² in `f64`, in a fixed order.
pub fn sum_squares<T: Real>(x: &[T]) -> f64 {
    let blocks = x.len().div_ceil(GRAIN);
    let mut partial = vec![0.0; blocks];
    let out = Shared::new(&mut partial);
    for_units(blocks, 1, |i| {
        let x = &x[i * GRAIN..((i + 1) * GRAIN).min(x.len())];
        let s = simd(
            #[inline(always)]
            || {
                let mut acc = [0.0f64; 16];
                let (chunks, rest) = x.as_chunks::<16>();
                for c in chunks {
                    for l in 0..16 {
                        let v = c[l].to_f64();
                        acc[l] = v.mul_add(v, acc[l]);
                    }
                }
                for (s, x) in acc.iter_mut().zip(rest) {
                    *s += x.to_f64() * x.to_f64();
                }
                acc.iter().sum::<f64>()
            },
        );
        // SAFETY: one element per unit
        unsafe { out.slice(i..i + 1)[0] = s };
    });
    partial.iter().sum()
}

/// y = x·m / (1 − p) where m is 0 with probability `p`, drawn from (`seed`, `offset` + index) alone: the backward pass
/// draws the same again, and a matrix may be done in pieces.
pub fn dropout_forward<T: Real>(x: &[T], y: &mut [T], p: f64, seed: u64, offset: u64) {
    assert_eq!(y.len(), x.len(), "dropout_forward");
    masked(x, y, p, seed, offset, false);
}

/// Gradient of [`dropout_forward`] with the same `p`, `seed` and `offset`: dx = dy·m / (1 − p), added when `accumulate`.
pub fn dropout_backward<T: Real>(dy: &[T], dx: &mut [T], p: f64, seed: u64, offset: u64, accumulate: bool) {
    assert_eq!(dy.len(), dx.len(), "dropout_backward");
    masked(dy, dx, p, seed, offset, accumulate);
}

fn masked<T: Real>(x: &[T], y: &mut [T], p: f64, seed: u64, offset: u64, accumulate: bool) {
    assert!((0.0..=1.0).contains(&p), "dropout probability {p}");
    let keep = if p < 1.0 { T::from_f64(1.0 / (1.0 - p)) } else { T::ZERO };
    let threshold = threshold(p);
    let n = y.len();
    for_rows((Rows(x, 1), RowsMut(y, 1)), n, 4, |(x, y), r| {
        let mut done = 0;
        while done < x.0.len() {
            // within a run the upper half of the counter is constant, so that the loop works on 32-bit lanes
            let at = offset + (r.start + done) as u64;
            let run = usize::try_from((1u64 << 32) - (at & 0xffff_ffff)).unwrap_or(usize::MAX).min(x.0.len() - done);
            let keys = keys(seed, at >> 32);
            let (x, y) = (&x.0[done..done + run], &mut y.0[done..done + run]);
            simd(
                #[inline(always)]
                || mask_run(x, y, at as u32, keys, threshold, keep, accumulate),
            );
            done += run;
        }
    });
}

#[inline(always)]
fn mask_run<T: Real>(x: &[T], y: &mut [T], start: u32, keys: [u32; 2], threshold: u32, keep: T, accumulate: bool) {
    for (i, (y, &x)) in y.iter_mut().zip(x).enumerate() {
        let draw = mix(mix(start.wrapping_add(i as u32) ^ keys[0]).wrapping_add(keys[1]));
        let v = if draw >= threshold { x * keep } else { T::ZERO };
        *y = if accumulate { *y + v } else { v };
    }
}

/// Draws of 32 bits below this are dropped; p = 1 must be served by a factor of 0.
pub(crate) fn threshold(p: f64) -> u32 {
    (p * 4_294_967_296.0).round().min(4_294_967_295.0) as u32
}

/// Two 32-bit keys from the seed and the upper half of the counter (splitmix64).
pub(super) fn keys(seed: u64, high: u64) -> [u32; 2] {
    let mut z = seed ^ high.wrapping_mul(0xd134_2543_de82_ef95);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^= z >> 31;
    [z as u32, (z >> 32) as u32]
}

/// A bijection of 32-bit words with low bias (C. Wellons' `lowbias32`).
#[inline(always)]
pub(super) fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x21f0_aaad);
    x ^= x >> 15;
    x = x.wrapping_mul(0x735a_2d97);
    x ^ (x >> 15)
}
