//! LoRA-GA (2407.05000): the first step of the factors follows the gradient of the weight. Direction `ArB2r` with the
//! stable scale n^¼/√γ on both factors, as in the paper and its authors' code.

use super::observed::check;
use super::{Context, Factors, Observed, SchemeInfo, Statistic, columns_as_rows, scaled_columns};
use crate::linalg::Spectrum;
use crate::randomised::randomised_svd;
use crate::{Error, Result};
use faer::Mat;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    name: "lora-ga",
    summary: "gradient = USVᵀ: A = n^¼/√γ·V[:, :r]ᵀ, B = n^¼/√γ·U[:, r:2r]",
    source: "2407.05000",
    needs_weight: false,
    changes_base: true,
    over_scaling: false,
    statistic: Statistic::Gradient,
    options: &["stable_gamma"],
    start,
};

/// Shorter side up to which the gradient is decomposed exactly; beyond it as the authors do it.
const EXACT: usize = 1024;
/// Power iterations and, in multiples of r, vectors of the authors' randomised decomposition.
const ITERATIONS: usize = 4;
const VECTORS: usize = 4;

fn start(c: &Context<'_>) -> Result<Factors> {
    let (n, m, r) = c.shape();
    let Some(Observed::Gradient(gradient)) = c.known.observed else { return Err(c.unobserved()) };
    let path = &c.plan.path;
    check(path, "gradient", gradient, n * m)?;
    if 2 * r > n.min(m) {
        let what = format!("`lora-ga` takes 2r singular triples of the gradient; r = {r} is too large for ({n}, {m})");
        return Err(Error::layer(path, what));
    }
    let largest = gradient.iter().fold(0.0f32, |top, x| top.max(x.abs()));
    if largest == 0.0 {
        return Err(Error::layer(path, "its gradient is 0 on the calibration data"));
    }
    // gradients of long means are tiny: their squares must not vanish
    let unit: Vec<f32> = gradient.iter().map(|x| x / largest).collect();
    let d = if n.min(m) <= EXACT {
        Spectrum::new(path, &unit, n, m, true)?.triples(0, 2 * r)
    } else {
        let q = (VECTORS * r).min(n.min(m));
        let noise = c.stream(0).normals(m * q, 1.0);
        let omega = Mat::from_fn(m, q, |i, j| noise[i * q + j] as f32);
        randomised_svd(path, &unit, (n, m), omega, ITERATIONS, 2 * r)?
    };
    let scale = vec![(n as f64).sqrt().sqrt() / c.spec.options.stable_gamma.sqrt(); r];
    let (v, u) = (d.v.as_ref().subcols(0, r), d.u.as_ref().subcols(r, r));
    let (v, u) = (signed(v), signed(u));
    Ok(Factors::new(columns_as_rows(&v, &scale), scaled_columns(&u, &scale)))
}

/// The columns with their largest entry positive: A and B take vectors of different triples, so that nothing else fixes
/// the sign of their product.
fn signed(x: faer::MatRef<'_, f64>) -> Mat<f64> {
    let sign = |k: usize| {
        let top = x.col(k).iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs()));
        if top < Some(0.0) { -1.0 } else { 1.0 }
    };
    let signs: Vec<f64> = (0..x.ncols()).map(sign).collect();
    Mat::from_fn(x.nrows(), x.ncols(), |i, k| signs[k] * x[(i, k)])
}
