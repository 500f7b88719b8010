//! LoRAM (2507.06558): orthogonal sine bases, scaled so that B₀A₀ has the share Q[r] of the weight's magnitude.

use super::{Context, Factors, LayerRecipe, Scheme, SchemeInfo, SchemeSpec};
use crate::basis::Basis;
use crate::gain::{Gain, GainStatistic};
use crate::rng::Stream;
use crate::{Result, magnitude};

pub(super) struct Loram;

impl Scheme for Loram {
    fn info(&self) -> SchemeInfo {
        SchemeInfo {
            name: "loram",
            summary: "β times the first r columns of the sine bases of both sides, β from the weight's norm",
            source: "2507.06558",
            needs_weight: true,
            basis_and_basis: true,
            options: &["basis", "gain", "gain_statistic"],
        }
    }

    fn start(&self, c: &Context<'_>) -> Result<Factors> {
        let (n, m, r) = (c.plan.n, c.plan.m, c.plan.r);
        let options = &c.spec.options;
        let statistic = options.gain_statistic;
        let [mut phi_m, mut phi_n] = bases(options.basis, &c.plan.path, c.seed, n, m, r);

        let of_product = |a: &[f32], b: &[f32]| product_statistic(statistic, a, b, n, m, r);
        // Φ_nΦ_mᵀ has ‖·‖² = r exactly when the columns are orthonormal
        let unit = match (options.basis.is_orthonormal(), statistic) {
            (true, GainStatistic::SecondMoment) => r as f64 / (n as f64 * m as f64),
            _ => of_product(&phi_m, &phi_n),
        };
        let gain = options.gain.value(&c.plan.path, c.w, r, c.seed)?;
        let wanted = match (&options.gain, gain) {
            (Gain::Track(scheme), _) => {
                let reference = SchemeSpec::parse(scheme, &Default::default())?;
                let f = reference.scheme.start(&Context { spec: &reference, ..*c })?;
                of_product(&f.a, &f.b)
            }
            (_, q) => {
                let (sum, squares) = magnitude::sums(c.w.data);
                q.unwrap_or(0.0) * statistic.of(n * m, sum, squares)
            }
        };
        let beta = (wanted / unit).max(0.0).powf(0.25);
        scale(&mut phi_m, beta);
        scale(&mut phi_n, beta);
        Ok(Factors { a: phi_m, b: phi_n, beta: Some(beta), gain })
    }
}

/// Φ_mᵀ (r, m) and Φ_n (n, r), row-major.
fn bases(basis: Basis, path: &str, seed: u64, n: usize, m: usize, r: usize) -> [Vec<f32>; 2] {
    let columns = |len, factor| basis.columns(len, r, &mut Stream::new(seed, path, factor));
    let (of_m, phi_n) = rayon::join(|| columns(m, 0), || columns(n, 1));
    let mut phi_m = vec![0.0; r * m];
    for (i, row) in of_m.chunks_exact(r).enumerate() {
        for (k, &x) in row.iter().enumerate() {
            phi_m[k * m + i] = x;
        }
    }
    [phi_m, phi_n]
}

fn scale(x: &mut [f32], beta: f64) {
    for x in x {
        *x = (f64::from(*x) * beta) as f32;
    }
}

/// The statistic of B·A without forming it: Σ entries = Σ_k (Σᵢ B[i,k])·(Σⱼ A[k,j]).
fn product_statistic(statistic: GainStatistic, a: &[f32], b: &[f32], n: usize, m: usize, r: usize) -> f64 {
    let sum: f64 = (0..r)
        .map(|k| {
            let of_a: f64 = a[k * m..(k + 1) * m].iter().map(|&x| f64::from(x)).sum();
            let of_b: f64 = (0..n).map(|i| f64::from(b[i * r + k])).sum();
            of_a * of_b
        })
        .sum();
    statistic.of(n * m, sum, magnitude::nu_product(a, b, n, m, r) * (n * m) as f64)
}

/// The start `(A₀, B₀)` of a recipe, bit for bit as it was; `None` when it needs the weight (spectral schemes) or is 0.
pub fn from_recipe(recipe: &LayerRecipe) -> Option<(Vec<f32>, Vec<f32>)> {
    let (beta, basis) = (recipe.beta?, recipe.basis?);
    let [mut a, mut b] = bases(basis, &recipe.path, recipe.seed, recipe.n, recipe.m, recipe.r);
    scale(&mut a, beta);
    scale(&mut b, beta);
    Some((a, b))
}
