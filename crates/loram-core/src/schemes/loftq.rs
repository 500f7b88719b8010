//! LoftQ (2310.08659): the start holds the part of W that N-bit quantisation loses and rank r can give back. Quantising
//! W − s·BA and decomposing the rest take turns.
//!
//! Here W stays as it is: as with every start that is not 0, training runs on W − s·B₀A₀ and the model says at step 0 what
//! it said before. Q, the quantised weight that belongs to the factors, is [`quantised_base`]; with it in place of W, the
//! factors are a plain adapter, and the model is off by what neither of them holds.

use super::{Context, Factors, Known, SchemeInfo, SchemeSpec, Statistic, pissa};
use crate::lanczos::{End, triples};
use crate::linalg::Svd;
use crate::quantise::Quantizer;
use crate::targets::LayerPlan;
use crate::weight::MatRef;
use crate::{Result, add_product};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "loftq",
    summary: "W ≈ Q + s·BA with Q quantised: the first r triples of W − Q, √(σ/s) on both factors",
    source: "2310.08659, PEFT `loftq`",
    statistic: Statistic::None,
    options: &["loftq_quantizer", "loftq_iter"],
    start,
    ..pissa::INFO
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let w = c.values()?;
    let d = rest(c, &w, &last_quantised(c, &w)?)?;
    Ok(Factors::of_triples(&d, &c.roots(&d.s)?))
}

/// The first r triples of W − Q.
fn rest(c: &Context<'_>, w: &[f32], q: &[f32]) -> Result<Svd> {
    let (n, m, r) = c.shape();
    let lost: Vec<f32> = w.iter().zip(q).map(|(w, q)| w - q).collect();
    triples(&c.plan.path, &lost, (n, m), End::First, r)
}

/// Q of the last turn.
fn last_quantised(c: &Context<'_>, w: &[f32]) -> Result<Vec<f32>> {
    let (_, m, r) = c.shape();
    let quantizer: Quantizer = c.spec.options.loftq_quantizer;
    let mut q = w.to_vec();
    quantizer.apply(&mut q);
    for _ in 1..c.spec.options.loftq_iter {
        let d = rest(c, w, &q)?;
        let roots: Vec<f64> = d.s.iter().map(|s| s.sqrt()).collect();
        let f = Factors::of_triples(&d, &roots);
        q.copy_from_slice(w);
        add_product(&mut q, &f.a, &f.b, m, r, -1.0);
        quantizer.apply(&mut q);
    }
    Ok(q)
}

/// Q (n, m) of a `loftq` start of the weight W, dequantised; `None` for other schemes. Quantising it once more changes
/// nothing. Errors: as the start's.
pub fn quantised_base(spec: &SchemeSpec, w: MatRef<'_>, plan: &LayerPlan) -> Result<Option<Vec<f32>>> {
    if spec.info().name != INFO.name {
        return Ok(None);
    }
    let c = Context { w: w.into(), plan, seed: 0, spec, known: Known::default() };
    let values = c.values()?;
    last_quantised(&c, &values).map(Some)
}
