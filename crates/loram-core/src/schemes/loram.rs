//! LoRAM (2507.06558): orthogonal sine bases, scaled so that B₀A₀ has the share Q\[r\] of the weight's magnitude.

use super::observed::check;
use super::pass::Seen;
use super::{Context, Factors, Observed, SchemeInfo, SchemeSpec, Statistic};
use crate::basis::{Basis, Columns};
use crate::gain::{Gain, GainStatistic, log_gain};
use crate::rng::Stream;
use crate::targets::LayerPlan;
use crate::{Error, Result, linalg, magnitude, sketch};

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "loram",
    summary: "β times the first r columns of the sine bases of both sides, β from the weight's norm",
    source: "2507.06558",
    needs_weight: true,
    changes_base: true,
    over_scaling: false,
    statistic: Statistic::None,
    options: &["basis", "gain", "gain_statistic"],
    start,
};

fn start(c: &Context<'_>) -> Result<Factors> {
    let (n, m, r) = c.shape();
    let options = &c.spec.options;
    let statistic = options.gain_statistic;
    let seen;
    let seen = match c.known.pass {
        Some(seen) => seen,
        None => {
            seen = match options.gain {
                Gain::Sketch => Seen::Sketch(sketch::of_weight(&c.plan.path, c.w, c.seed)),
                _ => Seen::Sums(c.w.data.sums()),
            };
            &seen
        }
    };
    let (sum, squares) = match seen {
        Seen::Sums(sums) => *sums,
        Seen::Sketch(sketch) => sketch.sums,
    };
    c.check_finite(squares)?;
    let [of_m, of_n] = columns(options.basis, c.plan, c.seed);
    let unit = unit(statistic, &of_m, &of_n, n * m);
    let gain = match seen {
        Seen::Sketch(sketch) => Some(sketch.gain(r)),
        Seen::Sums(_) => options.gain.value(&c.plan.path, c.w, r)?,
    };
    if let Gain::Auto(share) = options.gain {
        let largest = unit_beta(statistic.of(n * m, sum, squares), unit);
        return auto(c, share * squares.sqrt(), largest, [of_m, of_n]);
    }
    let wanted = match (&options.gain, gain) {
        (Gain::Track(scheme), _) => {
            let reference = SchemeSpec::parse(scheme, &Default::default())?;
            let f = (reference.info().start)(&Context { spec: &reference, ..*c })?;
            let entries = (n * m) as f64;
            statistic.of(n * m, sum_of_product(&f, n, m, r), magnitude::nu_product(&f.a, &f.b, n, m, r) * entries)
        }
        (_, q) => q.unwrap_or(0.0) * statistic.of(n * m, sum, squares),
    };
    let beta = unit_beta(wanted, unit);
    Ok(Factors { beta: Some(beta), gain, ..Factors::new(of_m.transposed(beta), of_n.rows(beta)) })
}

/// The fourth root as two square roots, which every machine rounds in the same way.
fn unit_beta(wanted: f64, unit: f64) -> f64 {
    if unit > 0.0 { (wanted / unit).max(0.0).sqrt().sqrt() } else { 0.0 }
}

/// The start whose first step has the norm `wanted`, and no more than `largest`, at which the gain is 1. A gradient of 0
/// tells nothing: then the gain is that of the logarithm.
fn auto(c: &Context<'_>, wanted: f64, largest: f64, [of_m, of_n]: [Columns; 2]) -> Result<Factors> {
    let (n, m, r) = c.shape();
    let Some(first) = c.spec.options.first_step else {
        return Err(Error::setting("gain", "`auto` needs the optimiser and the learning rates of the run"));
    };
    let Some(Observed::Gradient(gradient)) = c.known.observed else { return Err(c.unobserved()) };
    check(&c.plan.path, "gradient", gradient, n * m)?;
    let beta = match first.beta(gradient, &of_m, &of_n, c.plan.scaling, wanted) {
        Some(beta) => beta.min(largest),
        None => largest * log_gain(r, n, m).sqrt().sqrt(),
    };
    let gain = (largest > 0.0).then(|| (beta / largest).powi(4));
    Ok(Factors { beta: Some(beta), gain, ..Factors::new(of_m.transposed(beta), of_n.rows(beta)) })
}

fn columns(basis: Basis, plan: &LayerPlan, seed: u64) -> [Columns; 2] {
    let make = |len, factor| basis.columns(len, plan.r, &mut Stream::new(seed, &plan.path, factor));
    let (of_m, of_n) = rayon::join(|| make(plan.m, 0), || make(plan.n, 1));
    [of_m, of_n]
}

/// A₀ and B₀ from β.
pub(super) fn factors(basis: Basis, plan: &LayerPlan, seed: u64, beta: f64) -> (Vec<f32>, Vec<f32>) {
    let [of_m, of_n] = columns(basis, plan, seed);
    (of_m.transposed(beta), of_n.rows(beta))
}

/// The statistic of Φ_nΦ_mᵀ: its squares are the inner product of the Gram matrices (r when the columns are
/// orthonormal), its sum is that of the products of column sums.
fn unit(statistic: GainStatistic, of_m: &Columns, of_n: &Columns, entries: usize) -> f64 {
    let squares = linalg::dot(&of_m.gram(), &of_n.gram());
    let sum = linalg::dot(&of_m.sums(), &of_n.sums());
    statistic.of(entries, sum, squares)
}

/// Σ entries of B·A = Σ_k (Σᵢ B[i,k])·(Σⱼ A[k,j]).
fn sum_of_product(f: &Factors, n: usize, m: usize, r: usize) -> f64 {
    let of_a = |k: usize| f.a[k * m..(k + 1) * m].iter().map(|&x| f64::from(x)).sum::<f64>();
    let of_b = |k: usize| (0..n).map(|i| f64::from(f.b[i * r + k])).sum::<f64>();
    (0..r).map(|k| of_a(k) * of_b(k)).sum()
}
