//! Starts from singular triples of the weight: PiSSA (the first r, 2404.02948) and MiLoRA (the last r, 2406.09044).

use super::{Context, Factors, Scheme, SchemeInfo};
use crate::linalg::{Svd, mat, randomised_svd, rows, svd};
use crate::{Error, Result};
use faer::Mat;

pub(super) enum Spectral {
    Pissa,
    Milora,
}

impl Scheme for Spectral {
    fn info(&self) -> SchemeInfo {
        let (name, summary, source) = match self {
            Spectral::Pissa => (
                "pissa",
                "the first r singular triples, sqrt(σ/s) on both factors; `pissa-niter-<k>` with a randomised SVD",
                "2404.02948, PEFT `pissa`",
            ),
            Spectral::Milora => ("milora", "the last r singular triples, sqrt(σ/s) on both factors", "2406.09044"),
        };
        SchemeInfo { name, summary, source, needs_weight: true, basis_and_basis: true, options: &[] }
    }

    fn start(&self, c: &Context<'_>) -> Result<Factors> {
        let (n, m, r, path) = (c.plan.n, c.plan.m, c.plan.r, &c.plan.path);
        if c.plan.scaling <= 0.0 {
            return Err(Error::layer(path, format!("scaling {} is not positive: no square root", c.plan.scaling)));
        }
        let w = mat(c.w.data, n, m);
        let d: Svd = match c.spec.niter {
            // PEFT's oversampling (torch.svd_lowrank with q = r) leaves 1e-2 errors; 10 more vectors cost little
            Some(k) => {
                let q = (r + 10).min(n.min(m));
                randomised_svd(path, &w, &mat(&c.stream(0).normals(m * q, 1.0), m, q), k, r)?
            }
            None => svd(path, &w)?,
        };
        let first = match self {
            Spectral::Pissa => 0,
            Spectral::Milora => d.s.len() - r,
        };
        let root = |k: usize| (d.s[first + k] / c.plan.scaling).sqrt();
        let a = Mat::from_fn(r, m, |k, j| root(k) * d.v[(j, first + k)]);
        let b = Mat::from_fn(n, r, |i, k| d.u[(i, first + k)] * root(k));
        Ok(Factors::new(rows(&a), rows(&b)))
    }
}
