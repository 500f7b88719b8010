//! MiCA (2604.01694): B holds the last r left singular vectors and stays frozen; A is zero.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use super::rlpo;
use crate::Result;
use crate::growth::InitMagnitude;
use crate::lanczos::End;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A = 0, B: the last r left singular vectors, frozen",
    source: "2604.01694, PEFT `mica`",
    name: "mica",
    magnitude: Some(|_, f| {
        let (n, r) = (f.n as f64, f.r as f64);
        Some(InitMagnitude { k1_a: r / n, k1_b: 0.0, nu_a: 0.0, nu_b: 1.0 / n, ..InitMagnitude::zero(f) })
    }),
    init,
    ..rlpo::INFO
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (_, m, r) = c.shape();
    let b = c.triples(End::Last)?.left(&vec![1.0; r]);
    Ok(SchemeFactors { train_b: false, ..SchemeFactors::new(vec![0.0; r * m], b) })
}
