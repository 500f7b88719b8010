//! Decompositions through faer, each on one thread; products are split into blocks of fixed size. Both give the same
//! bits for any number of threads, which faer's own parallel decompositions do not.

use crate::{Error, Result};
use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::cholesky::llt::solve::{solve_in_place_scratch, solve_in_place_with_conj};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply_householder,
};
use faer::linalg::matmul::matmul;
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::linalg::svd::{ComputeSvdVectors, svd as faer_svd, svd_scratch};
use faer::traits::RealField;
use faer::{Accum, Conj, Mat, MatRef, Par};
use rayon::prelude::*;

/// Rows of a product computed by one task.
const ROWS: usize = 128;

/// Columns that it converts at a time: what a task needs stays in its cache.
const COLUMNS: usize = 512;

/// Row-major values as a matrix, without a copy.
pub(crate) fn view<T>(values: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(values, rows, cols)
}

/// A matrix of row-major values, in f64.
pub(crate) fn mat<T: Copy + Into<f64>>(values: &[T], rows: usize, cols: usize) -> Mat<f64> {
    Mat::from_fn(rows, cols, |i, j| values[i * cols + j].into())
}

/// Row-major values, rounded to f32.
pub(crate) fn rows(m: MatRef<'_, f64>) -> Vec<f32> {
    (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)] as f32)).collect()
}

/// A·B.
pub(crate) fn product<T: RealField>(a: MatRef<'_, T>, b: MatRef<'_, T>) -> Mat<T> {
    let mut out = Mat::zeros(a.nrows(), b.ncols());
    out.as_mut().par_row_chunks_mut(ROWS).enumerate().for_each(|(i, c)| {
        let a = a.subrows(i * ROWS, c.nrows());
        matmul(c, Accum::Replace, a, b, T::one_impl(), Par::Seq);
    });
    out
}

/// W·X in f64 for a large W in f32, converted block by block.
pub(crate) fn wide_product(w: MatRef<'_, f32>, x: MatRef<'_, f64>) -> Mat<f64> {
    let mut out = Mat::zeros(w.nrows(), x.ncols());
    out.as_mut().par_row_chunks_mut(ROWS).enumerate().for_each_init(Vec::new, |buffer, (i, mut c)| {
        let rows = w.subrows(i * ROWS, c.nrows());
        for at in (0..w.ncols()).step_by(COLUMNS) {
            let count = COLUMNS.min(w.ncols() - at);
            let part = converted(rows.subcols(at, count), buffer);
            matmul(c.as_mut(), Accum::Add, part, x.subrows(at, count), 1.0, Par::Seq);
        }
    });
    out
}

/// The values in f64, in a buffer, in the order in which they are stored.
fn converted<'a>(w: MatRef<'_, f32>, buffer: &'a mut Vec<f64>) -> MatRef<'a, f64> {
    let (n, m) = w.shape();
    let by_rows = w.col_stride() == 1;
    let lines = if by_rows { w.transpose() } else { w };
    buffer.clear();
    for line in lines.col_iter() {
        match line.try_as_col_major() {
            Some(line) => buffer.extend(line.as_slice().iter().map(|&x| f64::from(x))),
            None => buffer.extend(line.iter().map(|&x| f64::from(x))),
        }
    }
    if by_rows { MatRef::from_row_major_slice(buffer, n, m) } else { MatRef::from_column_major_slice(buffer, n, m) }
}

pub(crate) fn to_f64(w: MatRef<'_, f32>) -> Mat<f64> {
    Mat::from_fn(w.nrows(), w.ncols(), |i, j| f64::from(w[(i, j)]))
}

/// Thin singular value decomposition X = U·diag(s)·Vᵀ with s descending: U (n, k), s, V (m, k). `None` when it does not
/// converge.
pub struct Svd {
    pub(crate) u: Mat<f64>,
    pub(crate) s: Vec<f64>,
    pub(crate) v: Mat<f64>,
}

pub(crate) fn svd(x: MatRef<'_, f64>) -> Option<Svd> {
    let (n, m) = (x.nrows(), x.ncols());
    let k = n.min(m);
    let (mut u, mut v, mut s) = (Mat::zeros(n, k), Mat::zeros(m, k), Diag::zeros(k));
    let thin = ComputeSvdVectors::Thin;
    let mut memory = MemBuffer::new(svd_scratch::<f64>(n, m, thin, thin, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut memory);
    faer_svd(x, s.as_mut(), Some(u.as_mut()), Some(v.as_mut()), Par::Seq, stack, Default::default()).ok()?;
    Some(Svd { u, s: (0..k).map(|i| s[i]).collect(), v })
}

/// X = Q·R for X (n, k) with n ≥ k: Q (n, k) with orthonormal columns, R (k, k) upper triangular.
pub(crate) fn qr<T: RealField>(mut x: Mat<T>) -> (Mat<T>, Mat<T>) {
    let (n, k) = x.shape();
    let block = recommended_block_size::<T>(n, k);
    let mut coefficients = Mat::zeros(block, k);
    let need = qr_in_place_scratch::<T>(n, k, block, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(need.or(apply_scratch::<T>(n, block, k)));
    qr_in_place(x.as_mut(), coefficients.as_mut(), Par::Seq, MemStack::new(&mut memory), Default::default());
    let r = Mat::from_fn(k, k, |i, j| if i <= j { x[(i, j)].clone() } else { T::zero_impl() });
    let mut q = Mat::identity(n, k);
    let stack = MemStack::new(&mut memory);
    apply_householder(x.as_ref(), coefficients.as_ref(), Conj::No, q.as_mut(), Par::Seq, stack);
    (q, r)
}

/// As [`qr`], also for X with more columns than rows: then Q is the identity.
pub(crate) fn thin_qr(x: Mat<f64>) -> (Mat<f64>, Mat<f64>) {
    if x.nrows() < x.ncols() { (Mat::identity(x.nrows(), x.nrows()), x) } else { qr(x) }
}

/// A symmetric positive matrix, ready for products with its inverse.
pub(crate) struct Cholesky(Mat<f64>);

impl Cholesky {
    /// Of the lower triangle; `None` where the matrix is not positive.
    pub fn new(mut x: Mat<f64>) -> Option<Cholesky> {
        let mut memory = MemBuffer::new(cholesky_in_place_scratch::<f64>(x.nrows(), Par::Seq, Default::default()));
        let stack = MemStack::new(&mut memory);
        cholesky_in_place(x.as_mut(), Default::default(), Par::Seq, stack, Default::default()).ok()?;
        Some(Cholesky(x))
    }

    /// The inverse times X.
    pub fn solve(&self, mut x: Mat<f64>) -> Mat<f64> {
        x.as_mut().par_col_chunks_mut(16).for_each(|c| {
            let mut memory = MemBuffer::new(solve_in_place_scratch::<f64>(c.nrows(), c.ncols(), Par::Seq));
            solve_in_place_with_conj(self.0.as_ref(), Conj::No, c, Par::Seq, MemStack::new(&mut memory));
        });
        x
    }
}

/// Eigenvalues of a symmetric matrix (its lower triangle), ascending, and its eigenvectors when asked for.
pub(crate) fn eigen(x: MatRef<'_, f64>, vectors: bool) -> Option<(Vec<f64>, Mat<f64>)> {
    let n = x.nrows();
    let compute = if vectors { ComputeEigenvectors::Yes } else { ComputeEigenvectors::No };
    let (mut u, mut s) = (Mat::zeros(if vectors { n } else { 0 }, if vectors { n } else { 0 }), Diag::zeros(n));
    let mut memory = MemBuffer::new(self_adjoint_evd_scratch::<f64>(n, compute, Par::Seq, Default::default()));
    let out = vectors.then(|| u.as_mut());
    self_adjoint_evd(x, s.as_mut(), out, Par::Seq, MemStack::new(&mut memory), Default::default()).ok()?;
    Some(((0..n).map(|i| s[i]).collect(), u))
}

/// All singular values of a weight, and its singular vectors on the shorter side.
///
/// They come from the eigenvalues of the Gram matrix in f64, which takes half the time of a decomposition of W itself.
/// The squares cost half of the digits of f64, relative to σ₁: σ is exact to 1e-8·σ₁ or better, where a decomposition in
/// f32 (PEFT's) is to 1e-7·σ₁.
pub(crate) struct Spectrum<'a> {
    w: MatRef<'a, f32>,
    /// Descending.
    pub s: Vec<f64>,
    /// (p, p), p = min(n, m); columns belong to ascending values. Empty when only values were asked for.
    vectors: Mat<f64>,
}

impl<'a> Spectrum<'a> {
    /// Of W (n, m), row-major. `vectors`: whether triples will be asked for.
    pub fn new(path: &str, values: &'a [f32], n: usize, m: usize, vectors: bool) -> Result<Spectrum<'a>> {
        let w = view(values, n, m);
        let w = if n <= m { w } else { w.transpose() };
        let (squares, vectors) = eigen(gram(w).as_ref(), vectors)
            .ok_or_else(|| Error::layer(path, "its singular value decomposition did not converge"))?;
        Ok(Spectrum { w: view(values, n, m), s: squares.iter().rev().map(|x| x.max(0.0).sqrt()).collect(), vectors })
    }

    /// The triples `first..first + count`, with orthonormal vectors, each pair signed so that the largest entry of the
    /// shorter vector is positive.
    pub fn triples(&self, first: usize, count: usize) -> Svd {
        let p = self.s.len();
        long_vectors(self.w, Mat::from_fn(p, count, |i, k| self.vectors[(i, p - 1 - first - k)]))
    }
}

/// Triples of W from its singular vectors on the shorter side, orthonormal columns by descending value; signs as
/// [`Spectrum::triples`] has them.
pub(crate) fn long_vectors(w: MatRef<'_, f32>, mut short: Mat<f64>) -> Svd {
    let count = short.ncols();
    let wide = w.nrows() <= w.ncols();
    for k in 0..count {
        let top = short.col(k).iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
        if top < Some(0.0) {
            short.col_mut(k).iter_mut().for_each(|x| *x = -*x);
        }
    }
    let long = wide_product(if wide { w.transpose() } else { w }, short.as_ref());
    let mut columns: Vec<Vec<f64>> = long.col_iter().map(|c| c.iter().copied().collect()).collect();
    let s = columns.iter().map(|c| dot(c, c).sqrt()).collect();
    orthonormalise(&mut columns);
    let long = Mat::from_fn(long.nrows(), count, |i, k| columns[k][i]);
    let (u, v) = if wide { (short, long) } else { (long, short) };
    Svd { u, s, v }
}

/// W·Wᵀ (lower triangle) in f64 for W (p, q) in f32, p ≤ q.
pub(crate) fn gram(w: MatRef<'_, f32>) -> Mat<f64> {
    let (p, q) = w.shape();
    let mut out = Mat::<f64>::zeros(p, p);
    for start in (0..q).step_by(1024) {
        let part = to_f64(w.subcols(start, 1024.min(q - start)));
        out.as_mut().par_row_chunks_mut(ROWS).enumerate().for_each(|(i, c)| {
            let (first, count) = (i * ROWS, c.nrows());
            let right = part.as_ref().subrows(0, first + count);
            let c = c.subcols_mut(0, first + count);
            matmul(c, Accum::Add, part.as_ref().subrows(first, count), right.transpose(), 1.0, Par::Seq);
        });
    }
    out
}

/// Σxᵢyᵢ in a fixed order, the same on every machine.
pub(crate) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut acc = [0.0; 8];
    for (x, y) in x.chunks(8).zip(y.chunks(8)) {
        for (s, (x, y)) in acc.iter_mut().zip(x.iter().zip(y)) {
            *s += x * y;
        }
    }
    acc.iter().sum()
}

/// Gram–Schmidt, twice, in plain arithmetic: orthonormal columns with the same bits on every machine, positive diagonal
/// of R. A column that depends on those before it is replaced by a unit vector that does not.
pub(crate) fn orthonormalise(columns: &mut [Vec<f64>]) {
    let mut unit = 0;
    for k in 0..columns.len() {
        let (done, rest) = columns.split_at_mut(k);
        let c = &mut rest[0];
        let scale = dot(c, c).sqrt();
        let mut norm = scale;
        loop {
            for _ in 0..2 {
                for d in done.iter() {
                    let share = dot(d, c);
                    c.iter_mut().zip(d).for_each(|(c, d)| *c -= share * d);
                }
            }
            let left = dot(c, c).sqrt();
            if left > 1e-10 * norm && left > f64::MIN_POSITIVE {
                c.iter_mut().for_each(|x| *x /= left);
                break;
            }
            c.fill(0.0);
            c[unit % done.first().map_or(1, Vec::len)] = 1.0;
            unit += 1;
            norm = 1.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, m: usize) -> Vec<f32> {
        crate::rng::Stream::new(1, "noise", 0).normals(n * m, 1.0).iter().map(|&x| x as f32).collect()
    }

    fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
        (a - b).norm_l2()
    }

    #[test]
    fn spectrum_and_svd_agree() {
        for (n, m) in [(9, 9), (300, 140), (140, 300), (1, 5), (5, 1)] {
            let x = noise(n, m);
            let all = Spectrum::new("x", &x, n, m, true).unwrap().triples(0, n.min(m));
            let full = mat(&x, n, m);
            let want = svd(full.as_ref()).unwrap();
            for (a, b) in all.s.iter().zip(&want.s) {
                assert!((a - b).abs() < 1e-7 * want.s[0], "{n}×{m}: {a} {b}");
            }
            let us = Mat::from_fn(n, n.min(m), |i, k| all.u[(i, k)] * all.s[k]);
            let back = product(us.as_ref(), all.v.as_ref().transpose());
            assert!(distance(&back, &full) < 1e-6 * full.norm_l2(), "{n}×{m}");
            for q in [&all.u, &all.v] {
                let gram = product(q.as_ref().transpose(), q.as_ref());
                assert!(distance(&gram, &Mat::identity(n.min(m), n.min(m))) < 1e-9);
            }
        }
    }

    #[test]
    fn a_singular_weight_has_orthonormal_vectors_too() {
        let (n, m) = (12, 7);
        let mut x = noise(n, m);
        for row in x.chunks_mut(m) {
            row[6] = row[0];
            row[5] = 0.0;
        }
        let all = Spectrum::new("x", &x, n, m, true).unwrap().triples(3, 4);
        let gram = product(all.u.as_ref().transpose(), all.u.as_ref());
        assert!(distance(&gram, &Mat::identity(4, 4)) < 1e-9);
        assert!(all.s[2] < 1e-6 && all.s[3] < 1e-6 && all.s[1] > 0.1);
        let zero = vec![0.0f32; 12];
        let t = Spectrum::new("x", &zero, 4, 3, true).unwrap().triples(0, 3);
        let gram = product(t.u.as_ref().transpose(), t.u.as_ref());
        assert!(distance(&gram, &Mat::identity(3, 3)) < 1e-12);
    }

    #[test]
    fn qr_and_products() {
        let x = mat(&noise(200, 17), 200, 17);
        let (q, r) = qr(x.clone());
        assert!(distance(&product(q.as_ref(), r.as_ref()), &x) < 1e-12 * 60.0);
        assert!(distance(&product(q.as_ref().transpose(), q.as_ref()), &Mat::identity(17, 17)) < 1e-13);
    }
}
