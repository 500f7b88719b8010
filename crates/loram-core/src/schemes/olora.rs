//! OLoRA (2406.01775): the first columns of Q and rows of R of the weight's QR decomposition.

use super::{Context, Factors, Scheme, SchemeInfo};
use crate::Result;
use crate::linalg::{mat, rows};
use faer::Mat;

pub(super) struct Olora;

impl Scheme for Olora {
    fn info(&self) -> SchemeInfo {
        SchemeInfo {
            name: "olora",
            summary: "W = QR: A = R[:r], B = Q[:, :r]",
            source: "2406.01775, PEFT `olora`",
            needs_weight: true,
            basis_and_basis: true,
            options: &[],
        }
    }

    fn start(&self, c: &Context<'_>) -> Result<Factors> {
        let (n, m, r) = (c.plan.n, c.plan.m, c.plan.r);
        let d = mat(c.w.data, n, m).qr();
        let (q, upper) = (d.compute_thin_Q(), d.thin_R());
        let a = Mat::from_fn(r, m, |k, j| if j < k { 0.0 } else { upper[(k, j)] });
        let b = Mat::from_fn(n, r, |i, k| q[(i, k)]);
        Ok(Factors::new(rows(&a), rows(&b)))
    }
}
