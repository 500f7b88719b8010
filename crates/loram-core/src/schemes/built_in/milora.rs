//! MiLoRA (2406.09044): the last r singular triples, so that the main ones stay as they are.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use super::pissa;
use crate::Result;
use crate::growth::InitMagnitude;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "milora",
    summary: "the last r singular triples, √(σ/s) on both factors",
    source: "2406.09044",
    magnitude: Some(|_, f| {
        let sigma = f.sigma?;
        Some(InitMagnitude::of_triples(f, &sigma[sigma.len().saturating_sub(f.r)..]))
    }),
    init,
    ..pissa::INFO
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let d = c.triples(End::Last)?;
    Ok(SchemeFactors::of_triples(&d, &c.roots(d.values())?))
}
