//! Decompositions, through faer in double precision.

use crate::{Error, Result};
use faer::Mat;
use faer::linalg::matmul::matmul;
use faer::{Accum, Par};

/// A matrix of row-major values.
pub(crate) fn mat<T: Copy + Into<f64>>(values: &[T], rows: usize, cols: usize) -> Mat<f64> {
    Mat::from_fn(rows, cols, |i, j| values[i * cols + j].into())
}

/// Row-major values, rounded to f32.
pub(crate) fn rows(m: &Mat<f64>) -> Vec<f32> {
    (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)] as f32)).collect()
}

pub(crate) fn product(a: &Mat<f64>, b: &Mat<f64>) -> Mat<f64> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    matmul(out.as_mut(), Accum::Replace, a.as_ref(), b.as_ref(), 1.0, Par::rayon(0));
    out
}

/// Thin singular value decomposition W = U·diag(s)·Vᵀ with s descending: U (n, k), s, V (m, k).
pub(crate) struct Svd {
    pub u: Mat<f64>,
    pub s: Vec<f64>,
    pub v: Mat<f64>,
}

pub(crate) fn svd(path: &str, w: &Mat<f64>) -> Result<Svd> {
    let d = w.thin_svd().map_err(|_| Error::layer(path, "its singular value decomposition did not converge"))?;
    let k = w.nrows().min(w.ncols());
    Ok(Svd { u: d.U().to_owned(), s: (0..k).map(|i| d.S()[i]).collect(), v: d.V().to_owned() })
}

/// Randomised decomposition of rank `r` (Halko et al., 0909.4061, algorithms 4.4 and 5.1): `q` start vectors and `niter`
/// power iterations, each made orthonormal. `omega`: (m, q) standard normal.
pub(crate) fn randomised_svd(path: &str, w: &Mat<f64>, omega: &Mat<f64>, niter: usize, r: usize) -> Result<Svd> {
    let q = |m: &Mat<f64>| m.qr().compute_thin_Q();
    let wt = w.transpose().to_owned();
    let mut y = q(&product(w, omega));
    for _ in 0..niter {
        let z = q(&product(&wt, &y));
        y = q(&product(w, &z));
    }
    let small = product(&y.transpose().to_owned(), w);
    let d = svd(path, &small)?;
    let u = product(&y, &d.u);
    let first = |m: &Mat<f64>| m.subcols(0, r).to_owned();
    Ok(Svd { u: first(&u), s: d.s[..r].to_vec(), v: first(&d.v) })
}

/// Q (len, r) of the QR decomposition of row-major values, columns signed so that R has a positive diagonal (then the
/// distribution over orthogonal matrices is uniform).
pub(crate) fn orthonormal(values: &[f64], len: usize, r: usize) -> Vec<f32> {
    let d = mat(values, len, r).qr();
    let (q, rr) = (d.compute_thin_Q(), d.thin_R());
    let signed = Mat::from_fn(len, r, |i, j| if rr[(j, j)] < 0.0 { -q[(i, j)] } else { q[(i, j)] });
    rows(&signed)
}
