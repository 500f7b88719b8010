//! PiSSA (2404.02948): the first r singular triples, exactly or by a randomised decomposition.

use crate::schemes::context::Context;
use crate::schemes::factors::SchemeFactors;
use crate::schemes::info::SchemeInfo;
use crate::schemes::input::WeightUse;
use crate::Result;
use crate::growth::InitMagnitude;
use crate::lanczos::End;
use crate::randomised::{LANES, krylov_svd};
use faer::Mat;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "the first r singular triples, √(σ/s) on both factors",
    source: "2404.02948, PEFT `pissa`",
    weight: WeightUse::Values,
    changes_base: true,
    over_scaling: true,
    magnitude: Some(|_, f| {
        let sigma = f.sigma?;
        Some(InitMagnitude::of_triples(f, &sigma[..f.r.min(sigma.len())]))
    }),
    ..SchemeInfo::new("pissa", init)
};

pub(super) const RANDOMISED: SchemeInfo = SchemeInfo {
    name: "pissa-niter-k",
    summary: "`pissa` by a randomised decomposition no worse than k power iterations",
    source: "2404.02948, PEFT `pissa_niter_k`",
    init: randomised,
    ..INFO
};

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let d = c.triples(End::First)?;
    Ok(SchemeFactors::of_triples(&d, &c.roots(d.values())?))
}

fn randomised(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let w = c.values()?;
    // a full group costs no more over the weight
    let q = r.next_multiple_of(LANES).min(n.min(m));
    let noise = c.stream(0).normals(m * q, 1.0);
    let omega = Mat::from_fn(m, q, |i, j| noise[i * q + j] as f32);
    let d = krylov_svd(&c.plan().path, &w, (n, m), omega, c.number().unwrap_or(0), r)?;
    Ok(SchemeFactors::of_triples(&d, &c.roots(d.values())?))
}
