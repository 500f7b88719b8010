//! Init[AB]: both factors at random, as `lora` initialises A; their product is subtracted from the base.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::Result;
use crate::growth::InitMagnitude;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A and B uniform in ±1/sqrt(in_features)",
    source: "Init[AB]",
    changes_base: true,
    magnitude: Some(|_, f| {
        let variance = 1.0 / (3.0 * f.m as f64);
        Some(InitMagnitude::independent(f, variance, variance))
    }),
    ..SchemeInfo::new("init-ab", init)
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let bound = 1.0 / (m as f64).sqrt();
    Ok(SchemeFactors::new(c.stream(0).uniform(r * m, bound), c.stream(1).uniform(n * r, bound)))
}
