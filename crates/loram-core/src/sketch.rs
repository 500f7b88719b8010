//! An estimate of the exact gain from one pass over the weight, without singular values.
//!
//! For K = WᵀW the pass gives KΩ and WΩ for eight random sign vectors Ω, row panel by row panel: a panel is multiplied by
//! Ω and at once by the transpose of the result, while it lies in the cache. From the inner products G = ΩᵀKΩ and
//! H = ΩᵀK²Ω follow estimates of tr K², tr K³ and tr K⁴ without bias (the mean of H[a,a], of G[a,b]·H[b,a] and of
//! H[a,b]·H[b,a] over a ≠ b; the products over cycles of distinct vectors are those of Kong & Valiant, 1602.00061); tr K
//! is known. Then a spectrum σ(x) ∝ x^(−a)·(1−x)^b over the quantile x is fitted to these four moments. The family has
//! what spectra of trained layers show: a few large values, a bulk, and an end at zero.

use crate::linalg;
use crate::panel::{Pass, add_outer, gram_product};
use crate::rng::Stream;
use crate::weight::{StoredWeight, WeightBytes};

/// Random vectors.
const VECTORS: usize = 8;

type Lane = [f32; VECTORS];
type Inner = [[f64; VECTORS]; VECTORS];

/// The sums of a weight and an estimate of its spectrum, from one pass.
#[derive(Clone)]
pub(crate) struct Sketch {
    /// Σx and Σx² over the entries. The second is finite exactly when all of them are.
    pub sums: (f64, f64),
    side: usize,
    moments: [f64; 3],
}

/// The pass over a weight, deterministic in (seed, path).
pub(crate) fn sketch<B: WeightBytes>(path: &str, w: &StoredWeight<'_, B>, seed: u64) -> Result<Sketch, B::Error> {
    let side = w.rows().min(w.cols());
    let signs = Stream::new(seed, path, 2).signs(w.cols());
    let Pass { y, g, mut sums } = gram_product::<VECTORS, true, B>(w, &signs)?;
    if !sums.1.is_finite() {
        sums = w.try_sums()?;
    }
    Ok(Sketch { sums, side, moments: moments(&g, &inner(&y), sums.1, side) })
}

/// The same of a weight in memory.
pub(crate) fn of_weight(path: &str, w: StoredWeight<'_>, seed: u64) -> Sketch {
    let Ok(sketch) = sketch(path, &w, seed);
    sketch
}

impl Sketch {
    /// Q\[r\] = (Σ_{i≤r} σᵢ)² / (r·Σ σᵢ²), estimated; 0 for a weight of zeros.
    pub fn gain(&self, r: usize) -> f64 {
        if self.sums.1 == 0.0 || self.side == 0 { 0.0 } else { Shape::fit(self.side, self.moments).gain(r) }
    }

    /// All min(n, m) singular values, descending, estimated: the fitted shape at the scale of the weight. Values far down
    /// the spectrum are those of the family rather than of the weight.
    pub fn spectrum(&self) -> Vec<f64> {
        let squares = self.sums.1;
        if squares == 0.0 || self.side == 0 {
            return vec![0.0; self.side];
        }
        let shape = Shape::fit(self.side, self.moments);
        let at = |&(x, y, count): &(f64, f64, f64)| {
            std::iter::repeat_n(libm::exp(shape.b * y - shape.a * x), count as usize)
        };
        let mut sigma: Vec<f64> = shape.bins.iter().flat_map(at).collect();
        let scale = (squares / sigma.iter().map(|x| x * x).sum::<f64>()).sqrt();
        sigma.iter_mut().for_each(|x| *x *= scale);
        sigma
    }
}

/// ‖W‖₂ by at most 40 passes over the weight (subspace iteration with eight vectors), until one gains less than
/// `tolerance`.
pub(crate) fn spectral_norm(w: StoredWeight<'_>, tolerance: f64) -> f64 {
    let mut omega = Stream::new(0, "spectral norm", 0).signs(w.cols());
    let mut last = 0.0;
    for _ in 0..40 {
        let mut columns: Vec<Vec<f64>> =
            (0..VECTORS.min(w.cols())).map(|k| omega.iter().map(|o| f64::from(o[k])).collect()).collect();
        linalg::orthonormalise(&mut columns);
        omega.fill(Lane::default());
        for (k, c) in columns.iter().enumerate() {
            omega.iter_mut().zip(c).for_each(|(o, x)| o[k] = *x as f32);
        }
        let Ok(Pass { y, g, .. }) = gram_product::<VECTORS, false, _>(&w, &omega);
        let g = faer::Mat::from_fn(VECTORS, VECTORS, |i, j| g[i][j]);
        let top = linalg::eigen(g.as_ref(), false).and_then(|(s, _)| s.last().copied()).unwrap_or(0.0);
        if top <= last * (1.0 + tolerance) {
            return top.max(last).sqrt();
        }
        last = top;
        let scale = (1.0 / top) as f32;
        omega = y.iter().map(|y| y.map(|x| x * scale)).collect();
    }
    last.sqrt()
}

/// XᵀX.
fn inner(x: &[Lane]) -> Inner {
    let mut out = Inner::default();
    x.iter().for_each(|x| add_outer(&mut out, x));
    out
}

/// ln of tr Kᵏ/(tr K)ᵏ for k = 2, 3, 4, moved to where moments of `side` non-negative numbers can be.
fn moments(g: &Inner, h: &Inner, squares: f64, side: usize) -> [f64; 3] {
    let n = VECTORS as f64;
    let second = (0..VECTORS).map(|a| h[a][a]).sum::<f64>() / n;
    let pairs = |x: &Inner, y: &Inner| {
        let all = (0..VECTORS * VECTORS).filter(|k| k / VECTORS != k % VECTORS);
        all.map(|k| x[k / VECTORS][k % VECTORS] * y[k / VECTORS][k % VECTORS]).sum::<f64>() / (n * (n - 1.0))
    };
    // not `clamp`: where the bounds meet, rounding may put the lower one above the other
    let within = |x: f64, least: f64, most: f64| x.max(least).min(most);
    let m2 = within(second / squares.powi(2), 1.0 / side as f64, 1.0);
    // Cauchy–Schwarz below, the largest value's share above
    let m3 = within(pairs(g, h) / squares.powi(3), m2 * m2, m2 * m2.sqrt());
    let m4 = within(pairs(h, h) / squares.powi(4), m3 * m3 / m2, m2 * m2);
    [m2, m3, m4].map(libm::log)
}

/// σ(x) = x^(−a)·(1−x)^b at the quantiles of `side` values: the first ones each, later ones in bins that grow.
struct Shape {
    /// ln x, ln(1−x), values in the bin.
    bins: Vec<(f64, f64, f64)>,
    a: f64,
    b: f64,
}

impl Shape {
    /// How much the second, third and fourth moment count: as their estimates scatter.
    const TRUST: [f64; 3] = [4.0, 0.5, 0.25];
    /// Shapes of a typical trained layer, towards which a weak pull breaks ties.
    const TYPICAL: (f64, f64) = (0.15, 0.6);

    fn fit(side: usize, moments: [f64; 3]) -> Shape {
        let mut bins = Vec::new();
        let mut at = 0;
        while at < side {
            let count = (at / 12).clamp(1, side - at);
            let x = (at as f64 + count as f64 / 2.0) / side as f64;
            bins.push((libm::log(x), libm::log1p(-x), count as f64));
            at += count;
        }
        let mut shape = Shape { bins, a: Self::TYPICAL.0, b: Self::TYPICAL.1 };
        let mut best = shape.misfit(&moments);
        // pattern search: two parameters, a smooth function, a few hundred evaluations of about 70 terms
        let mut step = 0.16;
        while step > 2e-3 {
            let (a, b) = (shape.a, shape.b);
            let mut moved = false;
            for (da, db) in [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)] {
                shape.a = (a + f64::from(da) * step).max(0.0);
                shape.b = (b + f64::from(db) * 2.0 * step).max(0.0);
                let new = shape.misfit(&moments);
                if new < best - 1e-12 {
                    (best, moved) = (new, true);
                    break;
                }
            }
            if !moved {
                (shape.a, shape.b) = (a, b);
                step /= 2.0;
            }
        }
        shape
    }

    fn misfit(&self, moments: &[f64; 3]) -> f64 {
        let mut sums = [0.0; 4];
        for &(x, y, count) in &self.bins {
            let square = libm::exp(2.0 * (self.b * y - self.a * x));
            let mut power = count;
            for s in &mut sums {
                power *= square;
                *s += power;
            }
        }
        let total = libm::log(sums[0]);
        let mut out = 1e-3 * ((self.a - Self::TYPICAL.0).powi(2) / 0.04 + (self.b - Self::TYPICAL.1).powi(2) / 0.1);
        for k in 0..3 {
            let off = libm::log(sums[k + 1]) - (k + 2) as f64 * total - moments[k];
            out += Self::TRUST[k] * off * off;
        }
        out
    }

    fn gain(&self, r: usize) -> f64 {
        let (mut before, mut top, mut squares) = (0.0, 0.0, 0.0);
        for &(x, y, count) in &self.bins {
            let sigma = libm::exp(self.b * y - self.a * x);
            top += (r as f64 - before).clamp(0.0, count) * sigma;
            squares += count * sigma * sigma;
            before += count;
        }
        (top * top / (r as f64 * squares)).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_family_is_recovered_from_its_own_moments() {
        for (a, b) in [(0.1, 0.5), (0.3, 1.0), (0.05, 0.2)] {
            let mut truth = Shape::fit(4096, [0.0; 3]);
            (truth.a, truth.b) = (a, b);
            let mut sums = [0.0; 4];
            for &(x, y, count) in &truth.bins {
                let square = libm::exp(2.0 * (b * y - a * x));
                (0..4).for_each(|k| sums[k] += count * square.powi(k as i32 + 1));
            }
            let moments = [1, 2, 3].map(|k| libm::log(sums[k] / sums[0].powi(k as i32 + 1)));
            let found = Shape::fit(4096, moments);
            for r in [1, 8, 64, 512] {
                assert!((found.gain(r) / truth.gain(r) - 1.0).abs() < 0.1, "{a} {b} {r}");
            }
        }
    }

    #[test]
    fn spectral_norms() {
        let (n, m) = (60, 45);
        let x: Vec<f32> = Stream::new(0, "w", 0).normals(n * m, 1.0).iter().map(|&x| x as f32).collect();
        let want = linalg::svd(linalg::mat(&x, n, m).as_ref()).unwrap().s[0];
        let found = spectral_norm(StoredWeight::of(&x, n, m), 1e-5);
        assert!((found / want - 1.0).abs() < 1e-3, "{found} {want}");
        assert_eq!(spectral_norm(StoredWeight::of(&[0.0; 6], 2, 3), 1e-5), 0.0);
        assert!((spectral_norm(StoredWeight::of(&[3.0, 4.0], 2, 1), 1e-5) - 5.0).abs() < 1e-5);
    }

    #[test]
    fn extremes() {
        let gain = |w: &[f32], n, m, r| of_weight("x", StoredWeight::of(w, n, m), 0).gain(r);
        let ones = vec![1.0f32; 64 * 32];
        assert!(gain(&ones, 64, 32, 1) > 0.8, "rank one: Q[1] = 1");
        let mut eye = vec![0.0f32; 64 * 64];
        (0..64).for_each(|i| eye[i * 65] = 1.0);
        assert!((gain(&eye, 64, 64, 8) - 8.0 / 64.0).abs() < 0.02, "equal values: Q[r] = r/p");
        // one large value: the bounds of the fourth moment meet
        for n in 1..40 {
            let one: Vec<f32> = (0..n * 7).map(|k| 0.1 * (k / 7 + 1) as f32 * (k % 7 + 3) as f32).collect();
            assert!(gain(&one, n, 7, 1) > 0.8, "{n}");
        }
        assert_eq!(gain(&[0.0; 12], 4, 3, 2), 0.0);
        // the spectrum has the gains of the fit, and the norm of the weight
        let w = StoredWeight::of(&eye, 64, 64);
        let sigma = of_weight("x", w, 0).spectrum();
        assert_eq!(sigma.len(), 64);
        assert!((sigma.iter().map(|x| x * x).sum::<f64>() - 64.0).abs() < 1e-9 && sigma.is_sorted_by(|a, b| a >= b));
        for r in [1, 8, 64] {
            assert!((crate::exact_gain(&sigma, r) / gain(&eye, 64, 64, r) - 1.0).abs() < 1e-9, "{r}");
        }
        assert!((gain(&[2.0], 1, 1, 1) - 1.0).abs() < 1e-12);
    }
}
