//! Between the forms of an adapter, and into the weight.

use crate::linalg::{mat, product, rows, svd, thin_qr, view};
use crate::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, Par};
use rayon::prelude::*;

/// The rank-2r factors of B·A − B₀·A₀: A' = [A; A₀] (2r, m), B' = [B, −B₀] (n, 2r), row-major. With `lora_alpha' =
/// 2·lora_alpha` (rsLoRA: √2·lora_alpha) the scaling stays what it was.
#[allow(clippy::too_many_arguments)]
pub fn plain_factors(
    a: &[f32],
    b: &[f32],
    a0: &[f32],
    b0: &[f32],
    n: usize,
    m: usize,
    r: usize,
) -> (Vec<f32>, Vec<f32>) {
    assert_eq!((a.len(), b.len(), a0.len(), b0.len()), (r * m, n * r, r * m, n * r), "factors of rank {r}");
    let mut wide = Vec::with_capacity(2 * n * r);
    for i in 0..n {
        wide.extend_from_slice(&b[i * r..(i + 1) * r]);
        wide.extend(b0[i * r..(i + 1) * r].iter().map(|x| -x));
    }
    ([a, a0].concat(), wide)
}

/// `lora_alpha` of the plain form, with which the scaling at twice the rank is the same.
pub fn plain_alpha(lora_alpha: f64, use_rslora: bool) -> f64 {
    lora_alpha * if use_rslora { std::f64::consts::SQRT_2 } else { 2.0 }
}

/// The best factors of rank `to` for B·A, and ‖B·A − B'·A'‖_F/‖B·A‖_F: SVD through QR decompositions of the thin
/// factors, in O((n+m)·r²). A: (r, m), B: (n, r).
pub fn truncate(a: &[f32], b: &[f32], n: usize, m: usize, r: usize, to: usize) -> Result<(Vec<f32>, Vec<f32>, f64)> {
    if to == 0 || to > n.min(m) {
        return Err(Error::setting("rank", format!("expected 1 to {} for a ({n}, {m}) layer, found {to}", n.min(m))));
    }
    // a rank beyond the shorter side (a plain form of rank 2r) makes the factors wide
    let (qb, rb) = thin_qr(mat(b, n, r));
    let (qa, ra) = thin_qr(mat(a, r, m).transpose().to_owned());
    let core = product(rb.as_ref(), ra.as_ref().transpose());
    let d = svd(core.as_ref())
        .ok_or_else(|| Error::setting("rank", "the adapter's product has no decomposition: are its factors finite?"))?;
    let total: f64 = d.s.iter().map(|s| s * s).sum();
    let lost: f64 = d.s.iter().skip(to).map(|s| s * s).sum();
    // the square root on both sides keeps the factors balanced; ranks beyond those there are stay 0
    let root = |k: usize| d.s.get(k).copied().unwrap_or(0.0).sqrt();
    let left = product(qb.as_ref(), d.u.as_ref());
    let right = product(qa.as_ref(), d.v.as_ref());
    let column = |x: &Mat<f64>, i: usize, k: usize| if k < x.ncols() { x[(i, k)] * root(k) } else { 0.0 };
    let new_b = Mat::from_fn(n, to, |i, k| column(&left, i, k));
    let new_a = Mat::from_fn(to, m, |k, j| column(&right, j, k));
    Ok((rows(new_a.as_ref()), rows(new_b.as_ref()), if total > 0.0 { (lost / total).sqrt() } else { 0.0 }))
}

/// W ← W + s·B·A in f32, row panel by row panel; the same bits for any number of threads. W: (n, m), A: (r, m),
/// B: (n, r), row-major.
pub fn add_product(w: &mut [f32], a: &[f32], b: &[f32], m: usize, r: usize, s: f64) {
    const ROWS: usize = 64;
    if w.is_empty() || r == 0 {
        return;
    }
    let a = view(a, r, m);
    w.par_chunks_mut(ROWS * m).zip(b.par_chunks(ROWS * r)).for_each(|(w, b)| {
        let rows = w.len() / m;
        let w = MatMut::from_row_major_slice_mut(w, rows, m);
        matmul(w, Accum::Add, view(b, rows, r), a, s as f32, Par::Seq);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    fn random(len: usize, k: u64) -> Vec<f32> {
        Stream::new(k, "t", 0).normals(len, 1.0).iter().map(|&x| x as f32).collect()
    }

    #[test]
    fn plain_form_is_the_difference() {
        let (n, m, r) = (5, 7, 2);
        let [a, b, a0, b0] = [(r * m, 1), (n * r, 2), (r * m, 3), (n * r, 4)].map(|(l, k)| random(l, k));
        let (pa, pb) = plain_factors(&a, &b, &a0, &b0, n, m, r);
        let mut x = vec![0.0; n * m];
        add_product(&mut x, &pa, &pb, m, 2 * r, 0.5);
        let mut y = vec![0.0; n * m];
        add_product(&mut y, &a, &b, m, r, 0.5);
        add_product(&mut y, &a0, &b0, m, r, -0.5);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-5));
    }

    #[test]
    fn truncation_keeps_what_it_can() {
        let (n, m, r) = (9, 6, 4);
        let (a, b) = (random(r * m, 5), random(n * r, 6));
        let mut full = vec![0.0; n * m];
        add_product(&mut full, &a, &b, m, r, 1.0);
        let norm: f64 = full.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let mut last = f64::INFINITY;
        for to in 1..=6 {
            let (ta, tb, error) = truncate(&a, &b, n, m, r, to).unwrap();
            let mut rest = full.clone();
            add_product(&mut rest, &ta, &tb, m, to, -1.0);
            let found = rest.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() / norm;
            assert!((found - error).abs() < 1e-6, "rank {to}: {found} {error}");
            assert!(error <= last && (to < 4 || error < 1e-6));
            last = error;
        }
        assert!(truncate(&a, &b, n, m, r, 7).is_err());
    }
}
