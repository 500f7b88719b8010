//! EVA (2410.07170): A holds the directions in which the layer's inputs vary most, B is zero. Ranks move between layers to
//! where a component explains most.

use crate::schemes::context::Context;
use crate::schemes::factors::{SchemeFactors, columns_as_rows};
use crate::schemes::info::SchemeInfo;
use crate::schemes::observed::{Components, Statistic, check};
use crate::schemes::option::{OptionInfo, SchemeOptions, number};
use crate::config::LoraConfig;
use crate::linalg::{eigen, mat};
use crate::randomised::randomised_svd;
use crate::rng::Stream;
use crate::targets::LayerPlan;
use crate::{Error, Result};
use faer::Mat;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "A: the first r principal components of the layer's inputs, B = 0; ranks go where they explain most",
    source: "2410.07170, PEFT `eva`",
    statistic: Statistic::InputCovariance,
    options: &[RHO],
    components: Some(components),
    ..SchemeInfo::new("eva", init)
};

const RHO: OptionInfo = OptionInfo {
    key: "rho",
    help: "Largest rank of a layer under eva, in multiples of r; 1: every layer has rank r",
    expected: "a number of at least 1",
    default: "2",
    read: |value| number(value, |x| x >= 1.0),
};

/// Inputs up to which all components are computed; beyond it the first ones by subspace iteration.
const EXACT: usize = 1024;
/// Power iterations on the covariance, whose spectrum is the square of the inputs': as PEFT's eight on the inputs.
const ITERATIONS: usize = 4;

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    Ok(SchemeFactors::new(c.components()?.vectors[..r * m].to_vec(), vec![0.0; n * r]))
}

/// The number of components that a layer may get: ρ·r, rounded as in Python, and never more than a rank can be.
fn components(options: &SchemeOptions, plan: &LayerPlan) -> usize {
    // checked with the spec
    let rho: f64 = options.get(&RHO).unwrap_or(1.0);
    ((plan.r as f64 * rho).round_ties_even() as usize).clamp(plan.r, plan.n.min(plan.m).max(plan.r))
}

/// The first `count` principal components of inputs with this covariance (m, m), on any scale, and the share of the
/// variance that each explains. Errors name the layer: values that are not finite, inputs that do not vary.
pub fn principal_components(path: &str, covariance: &[f32], m: usize, count: usize) -> Result<Components> {
    check(path, "inputs' covariance", covariance, m * m)?;
    let total: f64 = (0..m).map(|i| f64::from(covariance[i * m + i])).sum();
    if total <= 0.0 {
        return Err(Error::layer(path, "its inputs do not vary on the calibration data: give more of them"));
    }
    let (values, vectors): (Vec<f64>, Mat<f64>) = if m <= EXACT || 4 * count >= m {
        let (values, vectors) = eigen(mat(covariance, m, m).as_ref(), true)
            .ok_or_else(|| Error::layer(path, "the principal components of its inputs did not converge"))?;
        let first = (0..count).map(|k| values[m - 1 - k]).collect();
        (first, Mat::from_fn(m, count, |i, k| vectors[(i, m - 1 - k)]))
    } else {
        let noise = Stream::new(0, path, 0).normals(m * 2 * count, 1.0);
        let omega = Mat::from_fn(m, 2 * count, |i, j| noise[i * 2 * count + j] as f32);
        let d = randomised_svd(path, covariance, (m, m), omega, ITERATIONS, count)?;
        (d.s, d.v)
    };
    Ok(Components {
        vectors: columns_as_rows(&vectors, &vec![1.0; count]),
        ratios: values.iter().map(|x| x.max(0.0) / total).collect(),
    })
}

/// Gives the ranks of all layers together to the components that explain most, whatever layer they are of: PEFT's
/// redistribution. `lora_alpha` goes with the rank, so that lora_alpha/r stays. A rank can become 0: then the layer gets
/// no adapter. Among equals the first layer is served first. Panics when there are not as many components as plans.
pub fn redistribute_ranks(config: &LoraConfig, plans: &mut [LayerPlan], components: &[Components]) {
    assert_eq!(plans.len(), components.len(), "components of every layer");
    let budget = plans.iter().map(|p| p.r).sum();
    let mut all: Vec<(f64, usize)> =
        components.iter().enumerate().flat_map(|(i, c)| c.ratios.iter().map(move |ratio| (*ratio, i))).collect();
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    let mut ranks = vec![0; plans.len()];
    all.iter().take(budget).for_each(|(_, i)| ranks[*i] += 1);
    for (plan, r) in plans.iter_mut().zip(ranks) {
        plan.lora_alpha *= r as f64 / plan.r as f64;
        plan.r = r;
        plan.scaling = if r == 0 { 0.0 } else { config.scaling(plan.lora_alpha, r) };
    }
}
