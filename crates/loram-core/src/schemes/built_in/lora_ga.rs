//! LoRA-GA (2407.05000): the first step of the factors follows the gradient of the weight. Direction `ArB2r` with the
//! stable scale n^¼/√γ on both factors, as in the paper and its authors' code.

use crate::schemes::context::Context;
use crate::schemes::factors::{SchemeFactors, columns_as_rows, scaled_columns};
use crate::schemes::info::SchemeInfo;
use crate::schemes::observed::Statistic;
use crate::schemes::option::{OptionInfo, number};
use crate::Result;
use crate::linalg::Spectrum;
use crate::randomised::randomised_svd;
use faer::Mat;

pub(super) const INFO: SchemeInfo = SchemeInfo {
    summary: "gradient = USVᵀ: A = n^¼/√γ·V[:, :r]ᵀ, B = n^¼/√γ·U[:, r:2r]",
    source: "2407.05000",
    changes_base: true,
    statistic: Statistic::Gradient,
    options: &[GAMMA],
    ..SchemeInfo::new("lora-ga", init)
};

const GAMMA: OptionInfo = OptionInfo {
    key: "stable_gamma",
    help: "gamma of lora-ga's stable scale; a larger one makes the initial factors smaller",
    expected: "a number above 0",
    default: "16",
    read: |value| number(value, |x| x > 0.0),
};

/// Shorter side up to which the gradient is decomposed exactly; beyond it as the authors do it.
const EXACT: usize = 1024;
/// Power iterations and, in multiples of r, vectors of the authors' randomised decomposition.
const ITERATIONS: usize = 4;
const VECTORS: usize = 4;

fn init(c: &Context<'_>) -> Result<SchemeFactors> {
    let (n, m, r) = c.shape();
    let gradient = c.gradient()?;
    let path = &c.plan().path;
    if 2 * r > n.min(m) {
        let what = format!("`lora-ga` takes 2r singular triples of the gradient; r = {r} is too large for ({n}, {m})");
        return Err(c.error(what));
    }
    let largest = gradient.iter().fold(0.0f32, |top, x| top.max(x.abs()));
    if largest == 0.0 {
        return Err(c.error("its gradient is 0 on the calibration data"));
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
    let scale = vec![(n as f64).sqrt().sqrt() / c.option::<f64>(&GAMMA)?.sqrt(); r];
    let (v, u) = (d.v.as_ref().subcols(0, r), d.u.as_ref().subcols(r, r));
    let (v, u) = (signed(v), signed(u));
    Ok(SchemeFactors::new(columns_as_rows(&v, &scale), scaled_columns(&u, &scale)))
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
