//! The magnitude ν\[X\] = ‖X‖²_F / entries of weights and updates (2507.06558), without forming n × m products.

use crate::factors::Factors;
use crate::linalg::{self, eigen, product, view};
use crate::sketch;
use crate::weight::StoredWeight;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, Par};
use rayon::prelude::*;

/// Σx and Σx² in f64, in blocks of a fixed size, so that any number of threads gives the same bits.
pub fn sums(x: &[f32]) -> (f64, f64) {
    StoredWeight::of(x, 1, x.len()).sums()
}

/// ν\[X\]; 0 for no entries.
pub fn nu(x: &[f32]) -> f64 {
    if x.is_empty() { 0.0 } else { sums(x).1 / x.len() as f64 }
}

/// ‖W‖₂ of a weight, by passes over it (40 at most) until one raises the estimate of ‖W‖₂² by less than the share
/// `tolerance`; the same bits for any number of threads. The estimate is never above the norm.
pub fn spectral_norm(w: StoredWeight<'_>, tolerance: f64) -> f64 {
    sketch::spectral_norm(w, tolerance)
}

/// An update ΔW (n, m) through the Gram matrices of its factors.
pub struct Update {
    /// AAᵀ and BᵀB of ΔW = s·B·A, (k, k).
    of_a: Mat<f64>,
    of_b: Mat<f64>,
    entries: f64,
    s: f64,
}

impl Update {
    /// Of ΔW = s·(B·A − B₀·A₀) for factors that were initialised with `init`, or of s·B·A without it; in O((n+m)·r²).
    ///
    /// It is computed as s·((B − B₀)·A + B₀·(A − A₀)), so that a small update beside large factors keeps its digits.
    pub fn new(factors: &Factors, init: Option<&Factors>, s: f64) -> Update {
        let Factors { n, m, r, ref a, ref b } = *factors;
        let Some(Factors { a: a0, b: b0, .. }) = init else { return Update::of_product(a, b, n, m, r, s) };
        let mut tall = a.to_vec();
        tall.extend(a.iter().zip(a0).map(|(x, x0)| x - x0));
        let mut wide = Vec::with_capacity(2 * b.len());
        for (row, row0) in b.chunks_exact(r.max(1)).zip(b0.chunks_exact(r.max(1))) {
            wide.extend(row.iter().zip(row0).map(|(x, x0)| x - x0));
            wide.extend_from_slice(row0);
        }
        Update::of_product(&tall, &wide, n, m, 2 * r, s)
    }

    /// Of s·B·A. A: (r, m), B: (n, r), row-major.
    pub(crate) fn of_product(a: &[f32], b: &[f32], n: usize, m: usize, r: usize, s: f64) -> Update {
        let (of_a, of_b) = rayon::join(|| gram(view(a, r, m)), || gram(view(b, n, r).transpose()));
        Update { of_a, of_b, entries: (n * m) as f64, s }
    }

    /// ‖ΔW‖²_F.
    fn squares(&self) -> f64 {
        let mut sum = 0.0;
        for (x, y) in self.of_a.col_iter().zip(self.of_b.col_iter()) {
            sum += x.iter().zip(y.iter()).map(|(x, y)| x * y).sum::<f64>();
        }
        self.s * self.s * sum.max(0.0)
    }

    /// ν\[ΔW\].
    pub fn nu(&self) -> f64 {
        if self.entries == 0.0 { 0.0 } else { self.squares() / self.entries }
    }

    /// ‖ΔW‖_F.
    pub fn frobenius(&self) -> f64 {
        self.squares().sqrt()
    }

    /// ‖ΔW‖₂: the root of the largest eigenvalue of √(AAᵀ)·BᵀB·√(AAᵀ). NaN when A or B are not finite.
    pub fn spectral_norm(&self) -> f64 {
        let Some((values, vectors)) = eigen(self.of_a.as_ref(), true) else { return f64::NAN };
        let k = values.len();
        let root = Mat::from_fn(k, k, |i, j| vectors[(i, j)] * values[j].max(0.0).sqrt());
        let inner = product(root.as_ref().transpose(), product(self.of_b.as_ref(), root.as_ref()).as_ref());
        let top = eigen(inner.as_ref(), false).map(|(s, _)| s.last().copied().unwrap_or(0.0));
        top.map_or(f64::NAN, |x| self.s.abs() * x.max(0.0).sqrt())
    }

    /// ‖AAᵀ‖²_F and ‖BᵀB‖²_F.
    pub(crate) fn gram_squares(&self) -> (f64, f64) {
        let squares = |x: &Mat<f64>| x.col_iter().map(|c| c.iter().map(|x| x * x).sum::<f64>()).sum();
        (squares(&self.of_a), squares(&self.of_b))
    }
}

impl Factors {
    /// ν\[B·A\] = ‖B·A‖²_F/(n·m), in O((n+m)·r²).
    pub fn nu(&self) -> f64 {
        Update::new(self, None, 1.0).nu()
    }
}

/// X·Xᵀ in f64 for X (k, len), in blocks of a fixed size.
fn gram(x: MatRef<'_, f32>) -> Mat<f64> {
    const BLOCK: usize = 1024;
    let (k, len) = x.shape();
    let parts: Vec<Mat<f64>> = (0..len.div_ceil(BLOCK))
        .into_par_iter()
        .map(|i| {
            let part = x.subcols(i * BLOCK, BLOCK.min(len - i * BLOCK));
            let part = Mat::from_fn(k, part.ncols(), |i, j| f64::from(part[(i, j)]));
            let mut out = Mat::zeros(k, k);
            matmul(out.as_mut(), Accum::Replace, part.as_ref(), part.as_ref().transpose(), 1.0, Par::Seq);
            out
        })
        .collect();
    parts.iter().fold(Mat::zeros(k, k), |mut sum, p| {
        sum += p;
        sum
    })
}

/// The factors' inner product Σ XᵢYᵢ in f64, in a fixed order; for ratios and angles between updates.
pub fn inner_product(x: &[f32], y: &[f32]) -> f64 {
    let wide = |x: &[f32]| x.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    x.chunks(4096).zip(y.chunks(4096)).map(|(x, y)| linalg::dot(&wide(x), &wide(y))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn random(len: usize, k: u64, std: f64) -> Vec<f32> {
        Stream::new(k, "t", 0).normals(len, std).iter().map(|&x| x as f32).collect()
    }

    #[test]
    fn products_without_forming_them() {
        for (n, m, r) in [(4, 3, 2), (70, 33, 5), (1500, 40, 3)] {
            let factors = Factors { n, m, r, a: random(r * m, 1, 1.0), b: random(n * r, 2, 1.0) };
            let mut p = vec![0.0; n * m];
            factors.add_to(&mut p, -1.5);
            let u = Update::new(&factors, None, -1.5);
            assert!((nu(&p) / u.nu() - 1.0).abs() < 1e-6);
            assert!((u.frobenius().powi(2) / (nu(&p) * (n * m) as f64) - 1.0).abs() < 1e-6);
            let top = linalg::svd(linalg::mat(&p, n, m).as_ref()).unwrap().s[0];
            assert!((u.spectral_norm() / top - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn a_small_update_beside_large_factors() {
        let (n, m, r) = (30, 20, 4);
        let (a0, b0) = (random(r * m, 1, 1.0), random(n * r, 2, 1.0));
        let (da, db) = (random(r * m, 3, 1e-4), random(n * r, 4, 1e-4));
        let add = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x + y).collect::<Vec<f32>>();
        let (a, b) = (add(&a0, &da), add(&b0, &db));
        let mut exact = 0.0;
        for i in 0..n {
            for j in 0..m {
                let entry = |a: &[f32], b: &[f32]| {
                    (0..r).map(|k| f64::from(b[i * r + k]) * f64::from(a[k * m + j])).sum::<f64>()
                };
                exact += (entry(&a, &b) - entry(&a0, &b0)).powi(2);
            }
        }
        let (factors, init) = (Factors { n, m, r, a, b }, Factors { n, m, r, a: a0, b: b0 });
        let nu = |factors| Update::new(factors, Some(&init), 2.0).nu();
        let found = nu(&factors) * (n * m) as f64;
        assert!((found / (4.0 * exact) - 1.0).abs() < 1e-6, "{found} {exact}");
        assert_eq!(nu(&init), 0.0, "nothing moved: exactly nothing");
    }

    #[test]
    fn inner_products() {
        let (x, y) = (random(10_000, 1, 1.0), random(10_000, 2, 1.0));
        let want: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
        assert!((inner_product(&x, &y) - want).abs() < 1e-9);
    }
}
