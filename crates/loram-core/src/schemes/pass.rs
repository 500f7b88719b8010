//! Starts that see each value of the weight once, or its sums alone: the weight need not lie in memory.

use super::{Initialization, Known, SchemeSpec, WeightUse, start};
use crate::gain::Gain;
use crate::sketch::{Sketch, sketch};
use crate::source::{Source, sums};
use crate::targets::LayerPlan;
use crate::weight::{Weight, WeightRef};
use crate::{Error, Result};

/// [`initialize_from`](super::initialize_from) for a weight (plan.n, plan.m) that is read while it is worked on, by specs with
/// [`SchemeSpec::one_pass`]. The outer error is that of the source; the inner ones are another spec, another number of
/// values, values that are not finite, a rank that the scheme cannot have.
pub fn initialize_in_pass<S: Source>(
    spec: &SchemeSpec,
    source: &S,
    plan: &LayerPlan,
    seed: u64,
) -> std::result::Result<Result<Initialization>, S::Error> {
    let (n, m) = (plan.n, plan.m);
    if !spec.one_pass() {
        let what = format!("`{spec}` with these options needs the weight in memory");
        return Ok(Err(Error::layer(&plan.path, what)));
    }
    if source.len() != n * m {
        let what = format!("expected a weight ({n}, {m}), found {} values", source.len());
        return Ok(Err(Error::layer(&plan.path, what)));
    }
    let pass = match (spec.weight_use(), &spec.options.gain) {
        (WeightUse::Shape, _) => None,
        (_, Gain::Sketch) => Some(Seen::Sketch(sketch(&plan.path, source, (n, m), seed)?)),
        _ => Some(Seen::Sums(sums(source)?)),
    };
    Ok(start_unseen(spec, pass.as_ref(), plan, seed))
}

/// Starts the adapter of a layer whose weight is out of reach, on an accelerator say, from the sums Σx and Σx² of its
/// values: as [`initialize_from`](super::initialize_from), for specs with [`SchemeSpec::sums_suffice`]. Errors: another spec, sums that are not
/// finite, a rank that the scheme cannot have.
pub fn initialize_from_sums(
    spec: &SchemeSpec,
    sums: (f64, f64),
    plan: &LayerPlan,
    seed: u64,
) -> Result<Initialization> {
    if !spec.sums_suffice() {
        let what = format!("`{spec}` with these options needs the weight, not only its sums");
        return Err(Error::layer(&plan.path, what));
    }
    start_unseen(spec, Some(&Seen::Sums(sums)), plan, seed)
}

/// A start for which the weight need not be there any more.
fn start_unseen(spec: &SchemeSpec, pass: Option<&Seen>, plan: &LayerPlan, seed: u64) -> Result<Initialization> {
    let w = Weight { data: WeightRef::F32(&[]), rows: plan.n, cols: plan.m };
    start(spec, w, plan, seed, Known { pass, observed: None })
}

/// What one pass over a weight found.
pub(super) enum Seen {
    /// Σx and Σx².
    Sums((f64, f64)),
    /// The same and an estimate of the spectrum.
    Sketch(Sketch),
}
