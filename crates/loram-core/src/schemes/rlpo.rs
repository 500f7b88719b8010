//! RLPO (2606.31813): A holds the first r right singular vectors, without their values; B is zero.

use super::{Context, Factors, SchemeInfo, Statistic, columns_as_rows};
use crate::Result;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "rlpo",
    summary: "A: the first r right singular vectors, B = 0",
    source: "2606.31813",
    needs_weight: true,
    changes_base: false,
    over_scaling: false,
    statistic: Statistic::None,
    options: &[],
    start,
};

fn start(c: &Context<'_>) -> Result<Factors> {
    right(c, End::First)
}

/// The first or the last r right singular vectors.
pub(super) fn right(c: &Context<'_>, end: End) -> Result<Factors> {
    let (n, _, r) = c.shape();
    let d = c.triples(end)?;
    Ok(Factors::new(columns_as_rows(&d.v, &vec![1.0; r]), vec![0.0; n * r]))
}
