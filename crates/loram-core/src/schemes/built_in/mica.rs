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
        // of an embedding B is trained
        (!f.embedding).then_some(())?;
        Some(InitMagnitude { k1_a: r / n, k1_b: 0.0, nu_a: 0.0, nu_b: 1.0 / n, ..InitMagnitude::zero(f) })
    }),
    init,
    ..rlpo::INFO
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    if c.is_embedding() {
        // the embedding is the transposed of a projection from one-hot vectors, whose outputs are the columns here
        let a = c.triples(End::Last)?.right(&vec![1.0; r]);
        return Ok(SchemeFactors { train_a: false, ..SchemeFactors::new(a, vec![0.0; n * r]) });
    }
    let b = c.triples(End::Last)?.left(&vec![1.0; r]);
    Ok(SchemeFactors { train_b: false, ..SchemeFactors::new(vec![0.0; r * m], b) })
}
