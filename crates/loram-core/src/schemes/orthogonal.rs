//! PEFT's `orthogonal`: both factors at random, through disjoint rows of one orthogonal matrix, so that B·A = 0.

use super::{Context, Factors, Scheme, SchemeInfo};
use crate::linalg::{mat, orthonormal, product, rows};
use crate::{Error, Result};
use faer::Mat;

pub(super) struct Orthogonal;

impl Scheme for Orthogonal {
    fn info(&self) -> SchemeInfo {
        SchemeInfo {
            name: "orthogonal",
            summary: "normal noise/10 times the odd (A) and even (B) rows of a random orthogonal matrix; r even, BA = 0",
            source: "PEFT `orthogonal`",
            needs_weight: false,
            basis_and_basis: false,
            options: &[],
        }
    }

    fn start(&self, c: &Context<'_>) -> Result<Factors> {
        let (n, m, r) = (c.plan.n, c.plan.m, c.plan.r);
        if r % 2 != 0 {
            return Err(Error::layer(&c.plan.path, format!("`orthogonal` needs an even rank, found r = {r}")));
        }
        let q = orthonormal(&c.stream(0).normals(r * r, 1.0), r, r);
        let half = |first: usize| Mat::from_fn(r / 2, r, |i, j| f64::from(q[(2 * i + first) * r + j]) / 10.0);
        let noise = |factor, len: usize| mat(&c.stream(factor).normals(len * r / 2, 1.0), len, r / 2);
        let a = product(&noise(1, m), &half(0)).transpose().to_owned();
        let b = product(&noise(2, n), &half(1));
        Ok(Factors::new(rows(&a), rows(&b)))
    }
}
