//! The first or the last singular triples of a weight to the precision of the whole decomposition, at a part of its cost:
//! block Lanczos in f64, on the Gram matrix or on its inverse, until their residuals vanish.

use crate::Result;
use crate::linalg::{Cholesky, Spectrum, Svd, eigen, gram, long_vectors, product, qr, view};
use crate::rng::Stream;
use faer::{Mat, MatRef};

/// Shorter side up to which the whole decomposition is quick enough.
const WHOLE: usize = 1536;
/// Residual ‖M·v − λ·v‖ of a vector over λ₁ at which it counts as an eigenvector of M.
const CONVERGED: f64 = 1e-11;
/// Vectors in a block beyond r: the wider, the sooner the first r stand out.
const EXTRA: usize = 16;

/// An end of the spectrum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The largest singular values.
    First,
    /// The smallest, the largest of them first.
    Last,
}

/// `r` singular triples of W (n, m), row-major, with signs and precision as [`Spectrum::triples`] has them. The same bits
/// for any number of threads. Spectra whose values do not stand out in half of all dimensions are decomposed as a whole.
pub(crate) fn triples(path: &str, values: &[f32], (n, m): (usize, usize), end: End, r: usize) -> Result<Svd> {
    let w = view(values, n, m);
    if n.min(m) > WHOLE
        && let Some(short) = short_vectors(path, w, end, r)
    {
        return Ok(long_vectors(w, short));
    }
    let first = if end == End::First { 0 } else { n.min(m) - r };
    Ok(Spectrum::new(path, values, n, m, true)?.triples(first, r))
}

/// Singular vectors (min(n, m), r) on the shorter side; `None` where they do not converge.
fn short_vectors(path: &str, w: MatRef<'_, f32>, end: End, r: usize) -> Option<Mat<f64>> {
    let mut g = gram(if w.nrows() <= w.ncols() { w } else { w.transpose() });
    let p = g.nrows();
    if end == End::First {
        for j in 0..p {
            for i in 0..j {
                g[(i, j)] = g[(j, i)];
            }
        }
        return eigenvectors(path, p, r, |x| product(g.as_ref(), x.as_ref()));
    }
    // a shift far below what the squares leave of the smallest values, so that the inverse of a singular matrix exists
    let largest = (0..p).map(|i| g[(i, i)]).fold(0.0, f64::max);
    (0..p).for_each(|i| g[(i, i)] += 1e-13 * largest);
    let inverse = Cholesky::new(g)?;
    let v = eigenvectors(path, p, r, |x| inverse.solve(x.clone()))?;
    Some(Mat::from_fn(p, r, |i, k| v[(i, r - 1 - k)]))
}

/// Eigenvectors (p, r) of the r largest eigenvalues of a symmetric positive matrix (p, p), of which products are known;
/// `None` where they do not converge in half of the dimensions.
fn eigenvectors(path: &str, p: usize, r: usize, times: impl Fn(&Mat<f64>) -> Mat<f64>) -> Option<Mat<f64>> {
    let b = (r + EXTRA).next_multiple_of(16);
    let most = p / 2 / b * b;
    if most == 0 {
        return None;
    }
    let noise = Stream::new(0, path, 0).normals(p * b, 1.0);
    let mut block = qr(Mat::from_fn(p, b, |i, k| noise[i * b + k])).0;
    let (mut basis, mut ritz) = (Mat::<f64>::zeros(p, most), Mat::<f64>::zeros(most, most));
    // each look costs as much as all those before it together
    let mut look = 4 * b;
    for at in (0..most).step_by(b) {
        let done = at + b;
        basis.subcols_mut(at, b).copy_from(&block);
        let mut rest = times(&block);
        let known = basis.subcols(0, done);
        let mut scale = Mat::identity(b, b);
        // M·block = basis·ritz + rest·scale; once leaves what rounding makes of it, and in an exhausted space all is rounding
        for pass in 0..8 {
            let overlap = product(known.transpose(), rest.as_ref());
            rest -= product(known, overlap.as_ref());
            let (q, t) = qr(rest);
            let mut column = ritz.submatrix_mut(0, at, done, b);
            column += &overlap * &scale;
            scale = t * scale;
            rest = q;
            if pass > 0 && overlap.norm_max() < 1e-12 {
                break;
            }
        }
        block = rest;
        if done < look && done < most {
            continue;
        }
        look = (done * 3 / 2).next_multiple_of(b);
        // only the lower triangle is read
        let whole = Mat::from_fn(done, done, |i, j| if i >= j { ritz[(j, i)] } else { 0.0 });
        let (values, vectors) = eigen(whole.as_ref(), true)?;
        let first = Mat::from_fn(done, r, |i, k| vectors[(i, done - 1 - k)]);
        // M·V·s = λ·V·s + rest·scale·(last rows of s)
        let left = scale * first.subrows(at, b);
        let limit = CONVERGED * values.last().copied().unwrap_or(0.0).max(f64::MIN_POSITIVE);
        if left.col_iter().all(|c| c.norm_l2() <= limit) {
            return Some(product(known, first.as_ref()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::rows;

    fn noise(k: u64, n: usize, m: usize) -> Mat<f64> {
        let x = Stream::new(k, "w", 0).normals(n * m, 1.0);
        Mat::from_fn(n, m, |i, j| x[i * m + j])
    }

    fn low(d: &Svd) -> Mat<f64> {
        let scaled = Mat::from_fn(d.u.nrows(), d.s.len(), |i, k| d.u[(i, k)] * d.s[k]);
        product(scaled.as_ref(), d.v.as_ref().transpose())
    }

    #[test]
    fn as_the_whole_decomposition_has_them() {
        let (n, m) = (300, 420);
        let decayed = |decay: f64| {
            let (u, v) = (qr(noise(1, n, n)).0, qr(noise(2, m, n)).0);
            let scaled = Mat::from_fn(n, n, |i, k| u[(i, k)] / (1.0 + k as f64).powf(decay));
            product(scaled.as_ref(), v.as_ref().transpose())
        };
        // a flat spectrum with ten values far below it, each half of the one before
        let low_end = {
            let (u, v) = (qr(noise(8, n, n)).0, qr(noise(9, m, n)).0);
            let value = |k: usize| if k < n - 10 { 1.0 } else { 0.05 * 0.5f64.powi((k + 10 - n) as i32) };
            let scaled = Mat::from_fn(n, n, |i, k| u[(i, k)] * value(k));
            product(scaled.as_ref(), v.as_ref().transpose())
        };
        let rank_three = product(noise(3, n, 3).as_ref(), noise(4, 3, m).as_ref());
        for (name, w) in [
            ("noise", noise(5, n, m)),
            ("steep", decayed(2.0)),
            ("flat", decayed(0.2)),
            ("rank three", rank_three),
            ("low end", low_end),
            ("equal", decayed(0.0)),
            ("nothing", Mat::zeros(n, m)),
        ] {
            for turned in [false, true] {
                let w = if turned { w.transpose().to_owned() } else { w.clone() };
                let (n, m) = w.shape();
                let values = rows(w.as_ref());
                let wide = view(&values, n, m);
                for (end, r) in [End::First, End::Last].into_iter().flat_map(|e| [1, 8, 30].map(|r| (e, r))) {
                    let Some(short) = short_vectors("w", wide, end, r) else {
                        let stands_out = match end {
                            End::First => ["steep", "rank three", "nothing"].contains(&name),
                            End::Last => name == "low end",
                        };
                        assert!(r == 30 || !stands_out, "{name} {end:?} {r}");
                        continue;
                    };
                    let found = long_vectors(wide, short);
                    let first = if end == End::First { 0 } else { 300 - r };
                    let spectrum = Spectrum::new("w", &values, n, m, true).unwrap();
                    let whole = spectrum.triples(first, r);
                    let top = spectrum.s[0].max(f64::MIN_POSITIVE);
                    for (x, y) in found.s.iter().zip(&whole.s) {
                        assert!((x - y).abs() <= 1e-7 * top, "{name} {end:?} {r}: {x} {y}");
                    }
                    for x in [&found.u, &found.v] {
                        let gram = product(x.as_ref().transpose(), x.as_ref());
                        assert!((gram - Mat::<f64>::identity(r, r)).norm_l2() < 1e-9, "{name} {end:?} {r}");
                    }
                    // where values are equal, any of their vectors will do
                    let apart = (low(&found) - low(&whole)).norm_l2();
                    let unique = match name {
                        "equal" | "nothing" => false,
                        "low end" => end == End::Last && r < 10,
                        "rank three" => end == End::Last || r < 4,
                        _ => true,
                    };
                    assert!(!unique || apart < 1e-6 * top, "{name} {end:?} {r}: {apart}");
                }
            }
        }
    }

    #[test]
    fn large_layers_and_those_that_do_not_stand_out() {
        let (n, m, r) = (1700, 1600, 16);
        let w = noise(7, n, m);
        let values = rows(w.as_ref());
        for end in [End::First, End::Last] {
            let found = triples("w", &values, (n, m), end, r).unwrap();
            let first = if end == End::First { 0 } else { m - r };
            let whole = Spectrum::new("w", &values, n, m, true).unwrap().triples(first, r);
            assert!((low(&found) - low(&whole)).norm_l2() < 1e-6 * whole.s[0], "{end:?}");
            // more vectors than half of the dimensions hold: as a whole
            assert!(short_vectors("w", view(&values, n, m), end, m).is_none());
            let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
            let again = pool.install(|| triples("w", &values, (n, m), end, r).unwrap());
            assert!(again.u == found.u && again.v == found.v && again.s == found.s);
        }
    }
}
