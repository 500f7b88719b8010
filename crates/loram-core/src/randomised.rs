//! Randomised decompositions: the first singular triples from products with a few vectors.

use crate::linalg::{Svd, eigen, product, qr, svd, thin_qr, to_f64, view, wide_product};
use crate::panel::{Pass, gram_product};
use crate::weight::StoredWeight;
use crate::{Error, Result};
use faer::{Mat, MatRef};

/// Vectors that go over the weight together.
pub(crate) const LANES: usize = 16;

/// Randomised decomposition of rank `r` of W (n, m) in f32, row-major: subspace iteration on K = WᵀW (0909.4061,
/// algorithm 4.4, with K·X as one step over the weight and X orthonormal after each), then the decomposition of W·X
/// (algorithm 5.1). `omega` (m, q) are the start vectors; `niter` counts as in torch's `svd_lowrank`, whose subspace has
/// seen W 2·niter + 1 times, where this one has seen it 2·niter + 2 times.
///
/// On average over the start vectors, ‖W − W·X·Xᵀ‖₂ is at most σ_{r+1} times the (2·niter + 2)-th root of
/// 1 + √(r/(e−1)) + exp(1)·√q/e·√(min(n, m) − r), with e = q − r vectors more than r (corollary 10.10): 1.13 for
/// 4096 × 4096, r = 16, q = 32 and niter = 16, whatever the spectrum.
pub(crate) fn randomised_svd(
    path: &str,
    values: &[f32],
    (n, m): (usize, usize),
    omega: Mat<f32>,
    niter: usize,
    r: usize,
) -> Result<Svd> {
    let mut x = omega;
    for _ in 0..=niter {
        let w = StoredWeight::of(values, n, m);
        x = qr(gram_times(w, &x)).0;
    }
    triples(path, view(values, n, m), to_f64(x.as_ref()), r)
}

/// As [`randomised_svd`], from the whole block Krylov space [X, K·X, K²·X …] of `omega` (m, b), b ≥ r (1504.05477, with
/// Rayleigh and Ritz's choice in it). It takes [`passes`] products with K, which find a polynomial at least as good as the
/// power that `niter` stands for: about 2·√niter of them, since those of Chebyshev grow with the square of the degree.
///
/// With P products the error is at most (1 + ε)·σ_{r+1} in the spectral norm, ε = O((ln m / P)²), whatever the spectrum
/// (theorem 1 there).
pub(crate) fn krylov_svd(
    path: &str,
    values: &[f32],
    (n, m): (usize, usize),
    omega: Mat<f32>,
    niter: usize,
    r: usize,
) -> Result<Svd> {
    let w = StoredWeight::of(values, n, m);
    let b = omega.ncols();
    // no more columns than there are dimensions
    let columns = (passes(niter) * b).min(m);
    let (mut basis, mut images) = (Mat::<f32>::zeros(m, columns), Mat::<f32>::zeros(m, columns));
    let mut x = qr(omega).0;
    for at in (0..columns).step_by(b) {
        let width = x.ncols();
        let y = gram_times(w, &x);
        basis.subcols_mut(at, width).copy_from(&x);
        images.subcols_mut(at, width).copy_from(&y);
        let (done, next) = (at + width, b.min(columns - at - width));
        x = y.subcols(0, next).to_owned();
        // again until nothing is left to take off: what is new in an exhausted space is rounding
        for pass in 0..8 * usize::from(next > 0) {
            let known = basis.subcols(0, done);
            let overlap = product(known.transpose(), x.as_ref());
            x -= product(known, overlap.as_ref());
            x = qr(x).0;
            if pass > 0 && overlap.norm_max() < 1e-4 {
                break;
            }
        }
    }
    let ritz = to_f64(product(basis.transpose(), images.as_ref()).as_ref());
    let (_, vectors) = eigen(ritz.as_ref(), true).ok_or_else(|| diverged(path))?;
    let last = vectors.ncols();
    let first = Mat::from_fn(last, r, |i, k| vectors[(i, last - 1 - k)] as f32);
    // the basis is orthonormal to the precision of f32 only
    let v = qr(to_f64(product(basis.as_ref(), first.as_ref()).as_ref())).0;
    triples(path, view(values, n, m), v, r)
}

/// Products with K that stand for `niter` power iterations.
fn passes(niter: usize) -> usize {
    (2 * (niter as f64).sqrt().ceil() as usize).min(niter) + 2
}

/// The first r triples of W·X·Xᵀ for X (m, q) with orthonormal columns (0909.4061, algorithm 5.1).
fn triples(path: &str, w: MatRef<'_, f32>, x: Mat<f64>, r: usize) -> Result<Svd> {
    let (q, small) = thin_qr(wide_product(w, x.as_ref()));
    let d = svd(small.as_ref()).ok_or_else(|| diverged(path))?;
    let u = product(q.as_ref(), d.u.as_ref().subcols(0, r));
    let v = product(x.as_ref(), d.v.as_ref().subcols(0, r));
    Ok(Svd { u, s: d.s[..r].to_vec(), v })
}

fn diverged(path: &str) -> Error {
    Error::layer(path, "its randomised decomposition did not converge")
}

/// WᵀW·X, [`LANES`] vectors at a time.
fn gram_times(w: StoredWeight<'_>, x: &Mat<f32>) -> Mat<f32> {
    let mut out = Mat::zeros(x.nrows(), x.ncols());
    for first in (0..x.ncols()).step_by(LANES) {
        let count = LANES.min(x.ncols() - first);
        let entry = |j: usize, k: usize| if k < count { x[(j, first + k)] } else { 0.0 };
        let lanes: Vec<[f32; LANES]> = (0..x.nrows()).map(|j| std::array::from_fn(|k| entry(j, k))).collect();
        let Ok(Pass { y, .. }) = gram_product::<LANES, false, _>(&w, &lanes);
        for k in 0..count {
            out.col_mut(first + k).iter_mut().zip(&y).for_each(|(o, y)| *o = y[k]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::Spectrum;
    use crate::rng::Stream;

    /// A weight with singular values 1/(1 + k)^decay.
    fn weight(n: usize, m: usize, decay: f64) -> Vec<f32> {
        let p = n.min(m);
        let noise = |k, rows, cols| {
            let x = Stream::new(k, "w", 0).normals(rows * cols, 1.0);
            qr(Mat::from_fn(rows, cols, |i, j| x[i * cols + j])).0
        };
        let (u, v) = (noise(1, n, p), noise(2, m, p));
        let scaled = Mat::from_fn(n, p, |i, k| u[(i, k)] / (1.0 + k as f64).powf(decay));
        crate::linalg::rows(product(scaled.as_ref(), v.as_ref().transpose()).as_ref())
    }

    fn left_out(w: &[f32], n: usize, m: usize, d: &Svd) -> f64 {
        let scaled = Mat::from_fn(n, d.s.len(), |i, k| d.u[(i, k)] * d.s[k]);
        let low = product(scaled.as_ref(), d.v.as_ref().transpose());
        Mat::from_fn(n, m, |i, j| f64::from(w[i * m + j]) - low[(i, j)]).norm_l2()
    }

    #[test]
    fn the_krylov_space_is_no_worse_than_the_iterations_that_it_stands_for() {
        for (n, m, r) in [(200, 300, 16), (300, 120, 8), (40, 40, 16), (20, 500, 5), (17, 17, 17), (3, 1, 1)] {
            for decay in [0.05, 0.5, 2.0] {
                let w = weight(n, m, decay);
                let exact = Spectrum::new("w", &w, n, m, true).unwrap().triples(0, r);
                let best = left_out(&w, n, m, &exact);
                for niter in [0, 1, 4, 16, 40] {
                    let omega = |q: usize| {
                        let x = Stream::new(3, "omega", 0).normals(m * q, 1.0);
                        Mat::from_fn(m, q, |i, j| x[i * q + j] as f32)
                    };
                    let krylov = krylov_svd("w", &w, (n, m), omega(r), niter, r).unwrap();
                    let power = randomised_svd("w", &w, (n, m), omega(r), niter, r).unwrap();
                    let (ours, theirs) = (left_out(&w, n, m, &krylov), left_out(&w, n, m, &power));
                    let size = w.iter().map(|x| f64::from(x * x)).sum::<f64>().sqrt();
                    assert!(ours <= theirs + 2e-5 * size, "{n}×{m}, {decay}, {niter}: {ours}, iterations {theirs}");
                    assert!(ours >= best - 1e-5 * size);
                    if niter == 16 && decay > 0.1 {
                        assert!(ours <= best + 1e-4 * size, "{n}×{m}, {decay}: {ours}, exact {best}");
                    }
                    let gram = product(krylov.v.as_ref().transpose(), krylov.v.as_ref());
                    assert!((gram - Mat::<f64>::identity(r, r)).norm_l2() < 1e-9);
                }
            }
        }
    }
}
