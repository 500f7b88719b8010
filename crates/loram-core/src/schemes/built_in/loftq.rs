//! LoftQ (2310.08659): the factors hold the part of W that N-bit quantisation loses and rank r can give back. Quantising
//! W − s·BA and decomposing the rest alternate.
//!
//! Here W stays as it is: as with every B₀A₀ that is not 0, training runs on W − s·B₀A₀, so that the output of the model
//! does not change at step 0. Q, the quantised weight that belongs to the factors, is [`SchemeInfo::plain_base`]; with it
//! in place of W, the factors are a plain adapter, and the model is off by what neither of them holds.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::schemes::input::WeightUse;
use crate::schemes::option::{OptionInfo, named, whole};
use crate::Result;
use crate::convert::add_product;
use crate::lanczos::End;
use crate::linalg::Svd;
use crate::quantise::Quantizer;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "W ≈ Q + s·BA with Q quantised: the first r triples of W − Q, √(σ/s) on both factors",
    source: "2310.08659, PEFT `loftq`",
    weight: WeightUse::Values,
    changes_base: true,
    over_scaling: true,
    options: &[QUANTIZER, ITERATIONS],
    plain_base: Some(|c| last_quantised(c, &c.values()?)),
    ..SchemeInfo::new("loftq", init)
};

const QUANTIZER: OptionInfo = OptionInfo {
    key: "loftq_quantizer",
    help: "Quantisation whose error loftq compensates",
    expected: "nf4, or uniform-N with N bits from 2 to 8",
    default: "nf4",
    read: named::<Quantizer>,
};

const ITERATIONS: OptionInfo = OptionInfo {
    key: "loftq_iter",
    help: "Iterations of loftq",
    expected: "a whole number of at least 1",
    default: "1",
    read: |value| whole(value, |n| n > 0),
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let w = c.values()?;
    let d = rest(c, &w, &last_quantised(c, &w)?)?;
    Ok(SchemeFactors::of_triples(&d, &c.roots(d.values())?))
}

/// The first r triples of W − Q.
fn rest(c: &Context<'_>, w: &[f32], q: &[f32]) -> Result<Svd> {
    let lost: Vec<f32> = w.iter().zip(q).map(|(w, q)| w - q).collect();
    c.triples_of(&lost, End::First)
}

/// Q of the last alternation.
fn last_quantised(c: &Context<'_>, w: &[f32]) -> Result<Vec<f32>> {
    let (_, m, r) = c.shape();
    let quantizer: Quantizer = c.option(&QUANTIZER)?;
    let mut q = w.to_vec();
    quantizer.apply(&mut q);
    for _ in 1..c.option::<usize>(&ITERATIONS)? {
        let d = rest(c, w, &q)?;
        let roots: Vec<f64> = d.values().iter().map(|s| s.sqrt()).collect();
        let f = SchemeFactors::of_triples(&d, &roots);
        q.copy_from_slice(w);
        add_product(&mut q, &f.a, &f.b, m, r, -1.0);
        quantizer.apply(&mut q);
    }
    Ok(q)
}
