//! Init[AB]: both factors at random, as `lora` starts A; the base takes the difference.

use super::{Context, Factors, SchemeInfo, Statistic};
use crate::Result;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "init-ab",
    summary: "A and B uniform in ±1/sqrt(in_features)",
    source: "Init[AB]",
    needs_weight: false,
    changes_base: true,
    over_scaling: false,
    statistic: Statistic::None,
    options: &[],
    start,
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let (n, m, r) = c.shape();
    let bound = 1.0 / (m as f64).sqrt();
    Ok(Factors::new(c.stream(0).uniform(r * m, bound), c.stream(1).uniform(n * r, bound)))
}
