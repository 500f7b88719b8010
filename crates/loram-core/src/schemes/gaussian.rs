//! PEFT's `gaussian`: A normal of deviation 1/r, B zero.

use super::{Context, Factors, Scheme, SchemeInfo};
use crate::Result;

pub(super) struct Gaussian;

impl Scheme for Gaussian {
    fn info(&self) -> SchemeInfo {
        SchemeInfo {
            name: "gaussian",
            summary: "A normal with deviation 1/r, B = 0",
            source: "PEFT `gaussian`",
            needs_weight: false,
            basis_and_basis: false,
            options: &[],
        }
    }

    fn start(&self, c: &Context<'_>) -> Result<Factors> {
        let (n, m, r) = (c.plan.n, c.plan.m, c.plan.r);
        let a = c.stream(0).normals(r * m, 1.0 / r as f64).iter().map(|&x| x as f32).collect();
        Ok(Factors::new(a, vec![0.0; n * r]))
    }
}
