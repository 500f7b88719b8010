//! MiCA (2604.01694): B holds the last r left singular vectors and stays frozen; A is zero.

use super::{Context, Factors, SchemeInfo, rlpo, scaled_columns};
use crate::Result;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "mica",
    summary: "A = 0, B: the last r left singular vectors, frozen",
    source: "2604.01694, PEFT `mica`",
    start,
    ..rlpo::INFO
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let (_, m, r) = c.shape();
    let d = c.triples(End::Last)?;
    let b = scaled_columns(&d.u, &vec![1.0; r]);
    Ok(Factors { train_b: false, ..Factors::new(vec![0.0; r * m], b) })
}
