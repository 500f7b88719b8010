//! The two forms of an adapter, and conversions of its factors.
//!
//! An initialisation with B₀·A₀ ≠ 0 subtracts s·B₀·A₀ from the base, so that the model computes at step 0 what it computed
//! before. What training changes is then s·(B·A − B₀·A₀), and an adapter file can hold it in two forms:
//!
//! - **plain**: the difference B·A − B₀·A₀ itself, as factors of rank 2r. It loads onto the untouched base, in PEFT and in
//!   any other program that reads LoRA.
//! - **native**: A and B as they were trained, of rank r, with the recipe of the initialisation beside them, from which
//!   A₀ and B₀ are recomputed. It belongs to the base with s·B₀·A₀ subtracted, and only loram reads it.
//!
//! Where B₀·A₀ = 0 both are the same.

use crate::config::LoraConfig;
use crate::factors::Factors;
use crate::linalg::{mat, product, rows, svd, thin_qr, view};
use crate::{Error, Result};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, Par};
use rayon::prelude::*;

impl Factors {
    /// The plain form of an adapter that was initialised with `init`, of rank 2r: A' = [A; A₀] (2r, m) and
    /// B' = [B, −B₀] (n, 2r), so that B'·A' = B·A − B₀·A₀. Its settings are [`LoraConfig::plain`].
    pub fn plain(&self, init: &Factors) -> Factors {
        let Factors { n, m, r, .. } = *self;
        assert_eq!((n, m, r), (init.n, init.m, init.r), "factors of one layer");
        let mut b = Vec::with_capacity(2 * n * r);
        for (row, row0) in self.b.chunks_exact(r).zip(init.b.chunks_exact(r)) {
            b.extend_from_slice(row);
            b.extend(row0.iter().map(|x| -x));
        }
        Factors { n, m, r: 2 * r, a: [&self.a[..], &init.a].concat(), b }
    }

    /// The native form of a plain adapter: what [`Factors::plain`] was made from. `None` unless the second halves are
    /// A₀ and −B₀ bit for bit, so after further training or a change of the rank.
    pub fn native(&self, init: &Factors) -> Option<Factors> {
        let Factors { n, m, r, .. } = *init;
        if (self.n, self.m, self.r) != (n, m, 2 * r) {
            return None;
        }
        let half = |at: usize, sign: f32| Factors {
            a: self.a[at * m..(at + r) * m].to_vec(),
            b: self.b.chunks_exact(2 * r).flat_map(|row| row[at..at + r].iter().map(|x| sign * x)).collect(),
            ..Factors { n, m, r, a: Vec::new(), b: Vec::new() }
        };
        half(r, -1.0).same_bits(init).then(|| half(0, 1.0))
    }

    /// The best factors of rank `to` for B·A, and the relative error ‖B·A − B'·A'‖_F/‖B·A‖_F: SVD through QR
    /// decompositions of the thin factors, in O((n+m)·r²).
    pub fn truncated(&self, to: usize) -> Result<(Factors, f64)> {
        let Factors { n, m, r, .. } = *self;
        if to == 0 || to > n.min(m) {
            return Err(Error::setting(
                "rank",
                format!("expected 1 to {} for a ({n}, {m}) layer, found {to}", n.min(m)),
            ));
        }
        // a rank beyond the shorter side (a plain form of rank 2r) makes the factors wide
        let (qb, rb) = thin_qr(mat(&self.b, n, r));
        let (qa, ra) = thin_qr(mat(&self.a, r, m).transpose().to_owned());
        let core = product(rb.as_ref(), ra.as_ref().transpose());
        let d = svd(core.as_ref()).ok_or_else(|| {
            Error::setting("rank", "the adapter's product has no decomposition: are its factors finite?")
        })?;
        let total: f64 = d.s.iter().map(|s| s * s).sum();
        let lost: f64 = d.s.iter().skip(to).map(|s| s * s).sum();
        // the square root on both sides keeps the factors balanced; ranks beyond those there are stay 0
        let root = |k: usize| d.s.get(k).copied().unwrap_or(0.0).sqrt();
        let left = product(qb.as_ref(), d.u.as_ref());
        let right = product(qa.as_ref(), d.v.as_ref());
        let column = |x: &Mat<f64>, i: usize, k: usize| if k < x.ncols() { x[(i, k)] * root(k) } else { 0.0 };
        let b = rows(Mat::from_fn(n, to, |i, k| column(&left, i, k)).as_ref());
        let a = rows(Mat::from_fn(to, m, |k, j| column(&right, j, k)).as_ref());
        Ok((Factors { n, m, r: to, a, b }, if total > 0.0 { (lost / total).sqrt() } else { 0.0 }))
    }

    /// Factors of rank `rank` with the product s·B·A: s is multiplied into B, and rows and columns of zeros are added.
    pub fn folded(&self, s: f64, rank: usize) -> Factors {
        let Factors { n, m, r, .. } = *self;
        let (s, mut a) = (s as f32, self.a.clone());
        a.resize(rank * m, 0.0);
        let mut b = Vec::with_capacity(n * rank);
        for row in self.b.chunks_exact(r) {
            b.extend(row.iter().map(|x| s * x));
            b.extend(std::iter::repeat_n(0.0, rank - r));
        }
        Factors { n, m, r: rank, a, b }
    }

    /// W ← W + s·B·A in f32: see [`add_product`].
    pub fn add_to(&self, w: &mut [f32], s: f64) {
        add_product(w, &self.a, &self.b, self.m, self.r, s);
    }
}

impl LoraConfig {
    /// The settings of the plain form: twice the ranks and the `lora_alpha` with which every scaling stays.
    pub fn plain(&self) -> LoraConfig {
        let factor = alpha_factor(self.use_rslora);
        self.map(|r| 2 * r, |alpha| alpha * factor)
    }

    /// The settings of the native form of a plain adapter: the inverse of [`LoraConfig::plain`].
    pub fn native(&self) -> LoraConfig {
        let factor = alpha_factor(self.use_rslora);
        self.map(|r| r / 2, |alpha| alpha / factor)
    }

    fn map(&self, rank: impl Fn(usize) -> usize, alpha: impl Fn(f64) -> f64) -> LoraConfig {
        LoraConfig {
            r: rank(self.r),
            lora_alpha: alpha(self.lora_alpha),
            rank_pattern: self.rank_pattern.iter().map(|(key, r)| (key.clone(), rank(*r))).collect(),
            alpha_pattern: self.alpha_pattern.iter().map(|(key, a)| (key.clone(), alpha(*a))).collect(),
            ..self.clone()
        }
    }
}

/// The multiple of `lora_alpha` with which lora_alpha/r, or lora_alpha/√r with rsLoRA, is the same at twice the rank.
fn alpha_factor(use_rslora: bool) -> f64 {
    if use_rslora { std::f64::consts::SQRT_2 } else { 2.0 }
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
    use crate::targets::{LinearInfo, plan_layers};

    fn random(n: usize, m: usize, r: usize, k: u64) -> Factors {
        let values = |len, k| Stream::new(k, "t", 0).normals(len, 1.0).iter().map(|&x| x as f32).collect();
        Factors { n, m, r, a: values(r * m, k), b: values(n * r, k + 1) }
    }

    #[test]
    fn plain_form_is_the_difference_and_turns_back() {
        let (n, m, r) = (5, 7, 2);
        let (trained, init) = (random(n, m, r, 1), random(n, m, r, 3));
        let plain = trained.plain(&init);
        let mut x = vec![0.0; n * m];
        plain.add_to(&mut x, 0.5);
        let mut y = vec![0.0; n * m];
        trained.add_to(&mut y, 0.5);
        init.add_to(&mut y, -0.5);
        assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-5));
        assert_eq!(plain.native(&init), Some(trained.clone()));
        let mut moved = plain.clone();
        moved.a[(r + 1) * m] += 1e-3;
        assert_eq!(moved.native(&init), None, "trained further");
        assert_eq!(trained.native(&init), None, "of another rank");
    }

    #[test]
    fn scalings_stay_at_twice_the_rank() {
        for use_rslora in [false, true] {
            let mut config = LoraConfig { r: 4, lora_alpha: 6.0, use_rslora, ..LoraConfig::default() };
            config.rank_pattern.insert("k".into(), 2);
            config.alpha_pattern.insert("v".into(), 3.0);
            let linears =
                ["a.q", "a.k", "a.v"].map(|p| LinearInfo { path: p.into(), n: 32, m: 32, output_layer: false });
            let plain = config.plain();
            let (before, after) = (plan_layers(&config, &linears).unwrap(), plan_layers(&plain, &linears).unwrap());
            for (x, y) in before.iter().zip(&after) {
                assert_eq!(2 * x.r, y.r);
                assert!((x.scaling - y.scaling).abs() < 1e-12, "{} {} {}", x.path, x.scaling, y.scaling);
            }
            assert_eq!(plain.native(), config);
        }
    }

    #[test]
    fn truncation_keeps_what_it_can() {
        let (n, m, r) = (9, 6, 4);
        let factors = random(n, m, r, 5);
        let mut full = vec![0.0; n * m];
        factors.add_to(&mut full, 1.0);
        let norm: f64 = full.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let mut last = f64::INFINITY;
        for to in 1..=6 {
            let (cut, error) = factors.truncated(to).unwrap();
            let mut rest = full.clone();
            cut.add_to(&mut rest, -1.0);
            let found = rest.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt() / norm;
            assert!((found - error).abs() < 1e-6, "rank {to}: {found} {error}");
            assert!(error <= last && (to < 4 || error < 1e-6));
            last = error;
        }
        assert!(factors.truncated(7).is_err());
    }
}
