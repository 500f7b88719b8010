//! The magnitude ν[X] = ‖X‖²_F / entries of weights and updates (2507.06558), without forming n × m products.

/// Σx and Σx² in f64, in blocks of a fixed size, so that any number of threads gives the same bits.
pub fn sums(x: &[f32]) -> (f64, f64) {
    use rayon::prelude::*;
    let block = |c: &[f32]| {
        let mut acc = [(0.0f64, 0.0f64); 8];
        for c in c.chunks(8) {
            for (s, &x) in acc.iter_mut().zip(c) {
                let x = f64::from(x);
                s.0 += x;
                s.1 += x * x;
            }
        }
        acc.iter().fold((0.0, 0.0), |t, s| (t.0 + s.0, t.1 + s.1))
    };
    let parts: Vec<_> = x.par_chunks(1 << 16).map(block).collect();
    parts.iter().fold((0.0, 0.0), |t, s| (t.0 + s.0, t.1 + s.1))
}

/// ν[X]; 0 for no entries.
pub fn nu(x: &[f32]) -> f64 {
    if x.is_empty() { 0.0 } else { sums(x).1 / x.len() as f64 }
}

/// ν[B·A] = tr(BᵀB·AAᵀ)/(n·m) in O((n+m)·r²). A: (r, m), B: (n, r), row-major.
pub fn nu_product(a: &[f32], b: &[f32], n: usize, m: usize, r: usize) -> f64 {
    let mut total = 0.0;
    for i in 0..r {
        for j in 0..r {
            let aa: f64 = a[i * m..][..m].iter().zip(&a[j * m..][..m]).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
            let bb: f64 = (0..n).map(|k| f64::from(b[k * r + i]) * f64::from(b[k * r + j])).sum();
            total += aa * bb;
        }
    }
    total / (n * m) as f64
}

/// ν[ΔW] of ΔW = s·(B·A − B₀·A₀); without a start, of s·B·A.
pub fn nu_update(a: &[f32], b: &[f32], start: Option<(&[f32], &[f32])>, n: usize, m: usize, r: usize, s: f64) -> f64 {
    s * s
        * match start {
            None => nu_product(a, b, n, m, r),
            Some((a0, b0)) => {
                let (pa, pb) = crate::convert::plain_factors(a, b, a0, b0, n, m, r);
                nu_product(&pa, &pb, n, m, 2 * r)
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_without_forming_it() {
        let (n, m, r) = (4, 3, 2);
        let a: Vec<f32> = (0..r * m).map(|i| i as f32 * 0.3 - 1.0).collect();
        let b: Vec<f32> = (0..n * r).map(|i| 0.7 - i as f32 * 0.2).collect();
        let mut p = vec![0.0; n * m];
        crate::convert::add_product(&mut p, &a, &b, m, r, 1.0);
        assert!((nu(&p) - nu_product(&a, &b, n, m, r)).abs() < 1e-6);
        assert!(nu_update(&a, &b, Some((&a, &b)), n, m, r, 2.0).abs() < 1e-9);
    }
}
