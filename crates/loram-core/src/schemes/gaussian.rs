//! PEFT's `gaussian`: A normal of deviation 1/r, B zero.

use super::{Context, Factors, SchemeInfo, Statistic};
use crate::Result;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "gaussian",
    summary: "A normal of deviation 1/r, B = 0",
    source: "PEFT `gaussian`",
    needs_weight: false,
    changes_base: false,
    over_scaling: false,
    statistic: Statistic::None,
    options: &[],
    start,
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let (n, m, r) = c.shape();
    let a = c.stream(0).normals(r * m, 1.0 / r as f64);
    Ok(Factors::new(a.iter().map(|&x| x as f32).collect(), vec![0.0; n * r]))
}
