//! RLPO (2606.31813): A holds the first r right singular vectors, without their values; B is zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::schemes::input::WeightUse;
use crate::Result;
use crate::growth::InitMagnitude;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A: the first r right singular vectors, B = 0",
    source: "2606.31813",
    weight: WeightUse::Values,
    magnitude: Some(|_, f| {
        let (m, r) = (f.m as f64, f.r as f64);
        Some(InitMagnitude { k1_a: 0.0, k1_b: r / m, nu_a: 1.0 / m, nu_b: 0.0, ..InitMagnitude::zero(f) })
    }),
    ..SchemeInfo::new("rlpo", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    right(c, End::First)
}

/// The first or the last r right singular vectors.
pub(super) fn right(c: &Context<'_>, end: End) -> Result<SchemeFactors> {
    let (n, _, r) = c.shape();
    Ok(SchemeFactors::new(c.triples(end)?.right(&vec![1.0; r]), vec![0.0; n * r]))
}
