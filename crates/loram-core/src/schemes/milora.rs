//! MiLoRA (2406.09044): the last r singular triples, so that the main ones stay as they are.

use super::{Context, Factors, SchemeInfo, pissa};
use crate::Result;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "milora",
    summary: "the last r singular triples, √(σ/s) on both factors",
    source: "2406.09044",
    start,
    ..pissa::INFO
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let d = c.triples(End::Last)?;
    Ok(Factors::of_triples(&d, &c.roots(&d.s)?))
}
