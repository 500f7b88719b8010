//! K·X for K = WᵀW and a few vectors X, in one pass over W as it is stored: a panel of rows is multiplied by X and at once
//! by the transpose of the result, while it lies in the cache.

use crate::weight::{Weight, WeightRef};
use rayon::prelude::*;
use std::ops::Range;

/// Rows multiplied together: their products with X stay in registers.
const PANEL: usize = 8;
/// Rows summed by one task; a constant, so that the result does not depend on the number of threads.
const BLOCK: usize = 256;

/// KX and XᵀKX for V vectors, `x[j]` being their entries for input j. V is 8 or 16: a vector register, or two.
pub(crate) fn gram_product<const V: usize>(w: Weight<'_>, x: &[[f32; V]]) -> (Vec<[f32; V]>, [[f64; V]; V]) {
    let blocks: Vec<_> = (0..w.rows.div_ceil(BLOCK))
        .into_par_iter()
        .map(|b| {
            let rows = b * BLOCK..((b + 1) * BLOCK).min(w.rows);
            pulp::Arch::new().dispatch(Block { w, rows, x })
        })
        .collect();
    let mut g = [[0.0; V]; V];
    let mut y = vec![[0.0; V]; w.cols];
    for (part, inner) in &blocks {
        y.iter_mut().zip(part).for_each(|(y, p)| (0..V).for_each(|k| y[k] += p[k]));
        (0..V).for_each(|i| (0..V).for_each(|j| g[i][j] += inner[i][j]));
    }
    (y, g)
}

/// Adds x·xᵀ.
#[inline(always)]
pub(crate) fn add_outer<const V: usize>(inner: &mut [[f64; V]; V], x: &[f32; V]) {
    for i in 0..V {
        for j in 0..V {
            inner[i][j] += f64::from(x[i]) * f64::from(x[j]);
        }
    }
}

/// The part of a block of rows. A type of its own, because a closure is not inlined where the vector unit is known.
struct Block<'a, const V: usize> {
    w: Weight<'a>,
    rows: Range<usize>,
    x: &'a [[f32; V]],
}

impl<const V: usize> pulp::NullaryFnOnce for Block<'_, V> {
    type Output = (Vec<[f32; V]>, [[f64; V]; V]);

    #[inline(always)]
    fn call(self) -> Self::Output {
        block(self.w, self.rows, self.x)
    }
}

#[inline(always)]
fn block<const V: usize>(w: Weight<'_>, rows: Range<usize>, x: &[[f32; V]]) -> (Vec<[f32; V]>, [[f64; V]; V]) {
    let m = w.cols;
    let mut y = vec![[0.0; V]; m];
    let mut g = [[0.0; V]; V];
    let mut panel = vec![0.0f32; PANEL * m];
    let mut at = rows.start;
    while at < rows.end {
        let count = PANEL.min(rows.end - at);
        read(&w.data, at * m, &mut panel[..count * m]);
        panel[count * m..].fill(0.0);
        let row: [&[f32]; PANEL] = std::array::from_fn(|i| &panel[i * m..][..m]);
        let mut u = [[0.0f32; V]; PANEL];
        let x = &x[..m];
        for j in 0..m {
            for i in 0..PANEL {
                for k in 0..V {
                    u[i][k] = row[i][j].mul_add(x[j][k], u[i][k]);
                }
            }
        }
        u.iter().for_each(|u| add_outer(&mut g, u));
        let y = &mut y[..m];
        for j in 0..m {
            let mut sum = y[j];
            for i in 0..PANEL {
                for k in 0..V {
                    sum[k] = row[i][j].mul_add(u[i][k], sum[k]);
                }
            }
            y[j] = sum;
        }
        at += count;
    }
    (y, g)
}

/// Like [`WeightRef::read`], inlined where the vector unit is known.
#[inline(always)]
fn read(w: &WeightRef<'_>, at: usize, out: &mut [f32]) {
    if let WeightRef::BF16(x) = w {
        for (o, x) in out.iter_mut().zip(&x[at..]) {
            *o = f32::from_bits(u32::from(x.to_bits()) << 16);
        }
    } else {
        w.read(at..at + out.len(), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn check<const V: usize>(n: usize, m: usize) {
        let normals = |k, len| Stream::new(k, "w", 0).normals(len, 1.0).into_iter().map(|x| x as f32);
        let w: Vec<f32> = normals(0, n * m).collect();
        let x: Vec<[f32; V]> = normals(1, m * V).collect::<Vec<_>>().as_chunks::<V>().0.to_vec();
        let (y, g) = gram_product(Weight { data: WeightRef::F32(&w), rows: n, cols: m }, &x);
        let row = |i: usize| &w[i * m..(i + 1) * m];
        for a in 0..V {
            let u: Vec<f64> =
                (0..n).map(|i| row(i).iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(x[a])).sum()).collect();
            for (j, y) in y.iter().enumerate() {
                let want: f64 = (0..n).map(|i| f64::from(row(i)[j]) * u[i]).sum();
                assert!((f64::from(y[a]) - want).abs() < 1e-4 * (n * m) as f64, "{n}×{m}, V = {V}");
            }
            for b in 0..V {
                let want: f64 = (0..m).map(|j| f64::from(y[j][a]) * f64::from(x[j][b])).sum();
                assert!((g[a][b] - want).abs() < 1e-4 * (n * m) as f64, "{n}×{m}, V = {V}");
            }
        }
    }

    #[test]
    fn products_by_their_definition() {
        for (n, m) in [(19, 13), (1, 5), (300, 20), (8, 1)] {
            check::<8>(n, m);
            check::<16>(n, m);
        }
    }
}
