//! LoRAM (2507.06558): orthogonal sine bases, scaled so that B₀A₀ has the share Q\[r\] of the weight's magnitude.

use crate::schemes::context::Context;
use crate::schemes::factors::{Scale, SchemeFactors};
use crate::schemes::info::{Behaviour, SchemeInfo, Tracked};
use crate::schemes::input::WeightUse;
use crate::schemes::observed::Statistic;
use crate::schemes::option::{OptionInfo, SchemeOptions, named};
use crate::basis::{Basis, Columns};
use crate::gain::{Gain, GainStatistic, exact, log_gain, singular_values_of};
use crate::growth::{InitMagnitude, LayerFacts};
use crate::magnitude::Update;
use crate::rng::Stream;
use crate::targets::LayerPlan;
use crate::{Error, Result, linalg};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "β times the first r columns of the sine bases of both sides, β from the weight's norm",
    source: "2507.06558",
    weight: WeightUse::Sums,
    changes_base: true,
    options: &[BASIS, GAIN, STATISTIC],
    behaviour_with: Some(behaviour),
    tracks: Some(|options| match gain(options) {
        Gain::Track(scheme) => Some(Tracked { option: GAIN.key, scheme }),
        _ => None,
    }),
    magnitude: Some(of_formula),
    recompute: Some(|plan, seed, kept| factors(columns(kept.basis, plan, seed), *kept)),
    ..SchemeInfo::new("loram", init)
};

const BASIS: OptionInfo = OptionInfo {
    key: "basis",
    help: "Basis of loram",
    expected: "dst, random-orthogonal, gaussian or dct",
    default: "dst",
    read: named::<Basis>,
};

const GAIN: OptionInfo = OptionInfo {
    key: "gain",
    help: "Gain of loram: how much of the weight's magnitude s·B₀A₀ has",
    expected: "log, log-half, exact, sketch, auto, auto:SHARE (a share of the weight's norm in (0, 1]), track:SCHEME, or a \
               number in (0, 1]",
    default: "log",
    read: named::<Gain>,
};

const STATISTIC: OptionInfo = OptionInfo {
    key: "gain_statistic",
    help: "Statistic of W that the gain multiplies; variance is that of the authors' code",
    expected: "second-moment or variance",
    default: "second-moment",
    read: named::<GainStatistic>,
};

/// The gain of options that are checked.
fn gain(options: &SchemeOptions) -> Gain {
    options.get(&GAIN).unwrap_or_default()
}

fn behaviour(options: &SchemeOptions, tracked: Option<Behaviour>) -> Behaviour {
    let own = INFO.behaviour();
    match (gain(options), tracked) {
        (Gain::Exact, _) => Behaviour { weight: WeightUse::Values, ..own },
        (Gain::Sketch, _) => Behaviour { weight: WeightUse::Sketch, ..own },
        (Gain::Auto(share), _) => {
            Behaviour { statistic: Statistic::Gradient, first_step: true, takes_share: share.is_none(), ..own }
        }
        (Gain::Track(_), Some(other)) => Behaviour { weight: other.weight.max(own.weight), ..other },
        _ => own,
    }
}

/// k₁ = Q·(m+n)·ν\[W\]. Bases that are only nearly orthonormal (`gaussian`) count as orthonormal, and the gains `exact`
/// and `sketch` are those of the singular values given.
fn of_formula(options: &SchemeOptions, f: &LayerFacts<'_>) -> Option<InitMagnitude> {
    let gain = match gain(options) {
        Gain::Exact | Gain::Sketch => exact(f.sigma?, f.r),
        gain => gain.of_shape(f.r, f.n, f.m)?,
    };
    // β⁴ = Q·‖W‖²_F/r, and r orthonormal directions on both sides
    let (n, m, r) = (f.n as f64, f.m as f64, f.r as f64);
    let squares = gain * f.nu_w * n * m;
    let beta2 = (squares / r).sqrt();
    let zero = InitMagnitude::zero(f);
    Some(InitMagnitude { k1_a: squares / n, k1_b: squares / m, nu_a: beta2 / m, nu_b: beta2 / n, ..zero })
}

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let gain = gain(c.options());
    let statistic: GainStatistic = c.option(&STATISTIC)?;
    let basis: Basis = c.option(&BASIS)?;
    let sketched;
    let ((sum, squares), known) = match gain {
        Gain::Sketch => {
            sketched = c.sketch()?;
            (sketched.sums, Some(sketched.gain(r)))
        }
        Gain::Exact => (c.sums()?, Some(exact(&singular_values_of(&c.plan().path, &c.values()?, n, m)?, r))),
        _ => (c.sums()?, gain.of_shape(r, n, m)),
    };
    let bases = columns(basis, c.plan(), c.seed());
    let unit = unit(statistic, &bases, n * m);
    let of_weight = statistic.of(n * m, sum, squares);
    if let Gain::Auto(share) = gain {
        let share = share.or(c.options().first_step.and_then(|f| f.share)).ok_or_else(|| {
            Error::setting(GAIN.key, "`auto` takes its share from the line search of a run: give auto:SHARE, such as auto:0.003")
        })?;
        let kept = auto(c, share * squares.sqrt(), unit_beta(of_weight, unit), basis, &bases)?;
        return Ok(factors(bases, kept));
    }
    let wanted = match c.tracked() {
        Some(f) => {
            let squares = Update::of_product(&f.a, &f.b, n, m, r, 1.0).nu() * (n * m) as f64;
            statistic.of(n * m, sum_of_product(f, n, m, r), squares)
        }
        None => known.unwrap_or(0.0) * of_weight,
    };
    Ok(factors(bases, Scale { beta: unit_beta(wanted, unit), gain: known, basis }))
}

/// The fourth root as two square roots, which every machine rounds in the same way.
fn unit_beta(wanted: f64, unit: f64) -> f64 {
    if unit > 0.0 { (wanted / unit).max(0.0).sqrt().sqrt() } else { 0.0 }
}

/// β whose first step has the norm `wanted`, and no more than `largest`, at which the gain is 1. A gradient of 0 tells
/// nothing: then the gain is that of the logarithm.
fn auto(c: &Context<'_>, wanted: f64, largest: f64, basis: Basis, [of_m, of_n]: &[Columns; 2]) -> Result<Scale> {
    let (n, m, r) = c.shape();
    let Some(first) = c.options().first_step else {
        return Err(Error::setting(GAIN.key, "`auto` needs the optimiser and the learning rates of the run"));
    };
    let beta = match first.beta(c.gradient()?, of_m, of_n, c.plan().scaling, wanted) {
        Some(beta) => beta.min(largest),
        None => largest * log_gain(r, n, m).sqrt().sqrt(),
    };
    Ok(Scale { beta, gain: (largest > 0.0).then(|| (beta / largest).powi(4)), basis })
}

/// The bases of both sides, that of m first.
fn columns(basis: Basis, plan: &LayerPlan, seed: u64) -> [Columns; 2] {
    let make = |len, factor| basis.columns(len, plan.r, &mut Stream::new(seed, &plan.path, factor));
    let (of_m, of_n) = rayon::join(|| make(plan.m, 0), || make(plan.n, 1));
    [of_m, of_n]
}

/// A₀ and B₀: β times the bases.
fn factors([of_m, of_n]: [Columns; 2], kept: Scale) -> SchemeFactors {
    SchemeFactors { scale: Some(kept), ..SchemeFactors::new(of_m.transposed(kept.beta), of_n.rows(kept.beta)) }
}

/// The statistic of Φ_nΦ_mᵀ: its squares are the inner product of the Gram matrices (r when the columns are
/// orthonormal), its sum is that of the products of column sums.
fn unit(statistic: GainStatistic, [of_m, of_n]: &[Columns; 2], entries: usize) -> f64 {
    let squares = linalg::dot(&of_m.gram(), &of_n.gram());
    let sum = linalg::dot(&of_m.sums(), &of_n.sums());
    statistic.of(entries, sum, squares)
}

/// Σ entries of B·A = Σ_k (Σᵢ B[i,k])·(Σⱼ A[k,j]).
fn sum_of_product(f: &SchemeFactors, n: usize, m: usize, r: usize) -> f64 {
    let of_a = |k: usize| f.a[k * m..(k + 1) * m].iter().map(|&x| f64::from(x)).sum::<f64>();
    let of_b = |k: usize| (0..n).map(|i| f64::from(f.b[i * r + k])).sum::<f64>();
    (0..r).map(|k| of_a(k) * of_b(k)).sum()
}
