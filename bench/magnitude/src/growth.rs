//! The law of growth (Proposition 2): on gradients of independent entries ν\[ΔW_t\] = k₁γt, as long as τ = γ·m·t, the share
//! of their initial size that the factors have moved by, is small.
//!
//! The law leaves out what the training of A and that of B have in common, 2·‖B₀ᵀGA₀ᵀ‖² of every gradient G. For
//! independent entries that is a further 2·r²·ν\[A₀\]·ν\[B₀\] to k₁: nothing for B₀ = 0, a share of 2r/(n+m) for LoRAM.

use crate::plot::{Line, Panel, figure};
use crate::result::Result;
use loram_core::growth::{InitMagnitude, sgd};
use loram_core::magnitude::Update;
use loram_core::{LayerPlan, SchemeOptions, SchemeSpec, StoredWeight, initialize};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use plotters::prelude::SeriesLabelPosition;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};
use std::path::Path;

const N: usize = 256;
const M: usize = 192;
/// The last step's τ of a run beyond the law.
const FAR: f64 = 3.0;
/// The last step's τ of a run whose slope is fitted.
const NEAR: f64 = 0.005;
pub const SCHEMES: [&str; 3] = ["lora", "loram", "pissa"];
pub const RANKS: [usize; 5] = [4, 8, 16, 32, 64];

fn normals(rng: &mut ChaCha8Rng, len: usize, std: f32) -> Vec<f32> {
    (0..len).map(|_| -> f32 { StandardNormal.sample(rng) }).map(|x: f32| x * std).collect()
}

/// A weight with a spectrum like that of trained layers: a few large values over a bulk.
fn weight(rng: &mut ChaCha8Rng) -> Vec<f32> {
    let mut w = normals(rng, N * M, 0.02);
    for k in 0..24 {
        let size = 1.2 / (1.0 + k as f32).sqrt();
        let (u, v) = (normals(rng, N, (1.0 / N as f32).sqrt()), normals(rng, M, (1.0 / M as f32).sqrt()));
        for i in 0..N {
            for j in 0..M {
                w[i * M + j] += size * u[i] * v[j];
            }
        }
    }
    w
}

/// One run: τ and ν\[ΔW\] over the steps, and the slope k₁γ·t that is expected.
pub struct Course {
    pub scheme: &'static str,
    pub r: usize,
    pub k1: f64,
    /// 2·r²·ν\[A₀\]·ν\[B₀\].
    pub common: f64,
    /// γ = η²σ_L².
    pub gamma: f64,
    /// Steps and ν\[ΔW\].
    pub points: Vec<(f64, f64)>,
}

impl Course {
    pub fn tau(&self, steps: f64) -> f64 {
        self.gamma * M as f64 * steps
    }

    /// The slope of ν\[ΔW_t\] in t, through the origin, over γ.
    pub fn slope(&self) -> f64 {
        let (xy, xx) = self.points.iter().fold((0.0, 0.0), |(xy, xx), p| (xy + p.0 * p.1, xx + p.0 * p.0));
        xy / xx / self.gamma
    }

    /// Measured over expected at the step of this τ.
    pub fn at(&self, tau: f64) -> f64 {
        let far = |p: &&(f64, f64)| (self.tau(p.0) / tau).ln().abs();
        let p = self.points.iter().min_by(|a, b| far(a).total_cmp(&far(b))).expect("steps");
        p.1 / sgd(self.k1, 1.0, self.gamma.sqrt(), 1.0, p.0)
    }
}

/// SGD at s = 1 on gradients of independent entries of variance 1, up to τ = `tau`.
pub fn course(scheme: &'static str, r: usize, steps: usize, tau: f64) -> Result<Course> {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let w = weight(&mut rng);
    let spec = SchemeSpec::parse(scheme, &SchemeOptions::default())?;
    let plan = LayerPlan { path: "layer".into(), n: N, m: M, r, lora_alpha: r as f64, scaling: 1.0 };
    let start = initialize(&spec, StoredWeight::of(&w, N, M), &plan, 5)?;
    let magnitude = InitMagnitude::of(&start);
    let (k1, common) = (magnitude.k1(), 2.0 * (r * r) as f64 * magnitude.nu_a * magnitude.nu_b);
    let init = start.factors;
    let mut now = init.clone();
    let gamma = tau / (M * steps) as f64;
    let lr = gamma.sqrt() as f32;
    let mut points = Vec::new();
    for t in 1..=steps {
        let g = normals(&mut rng, N * M, 1.0);
        let before = now.clone();
        let g = View::new(&g, N, M);
        gemm(ViewMut::new(&mut now.a, r, M), true, -lr, View::new(&before.b, N, r).t(), g);
        gemm(ViewMut::new(&mut now.b, N, r), true, -lr, g, View::new(&before.a, r, M).t());
        if t % 4 == 0 || t * 20 < steps {
            points.push((t as f64, Update::new(&now, Some(&init), 1.0).nu()));
        }
    }
    Ok(Course { scheme, r, k1, common, gamma, points })
}

/// All courses, printed and plotted.
pub fn run(plots: &Path) -> Result<()> {
    println!(
        "{:8} {:>3} {:>10} {:>10} {:>12} {:>7} {:>7} {:>7} {:>7}",
        "scheme", "r", "k1", "slope/k1γ", "with common", "τ=0.1", "0.3", "1", "3"
    );
    let mut slopes = Vec::new();
    let mut ratios = Vec::new();
    for (colour, scheme) in SCHEMES.into_iter().enumerate() {
        let (mut measured, mut expected) = (Vec::new(), Vec::new());
        for r in RANKS {
            let (near, c) = (course(scheme, r, 100, NEAR)?, course(scheme, r, 600, FAR)?);
            let at = [0.1, 0.3, 1.0, 3.0].map(|tau| format!("{:7.3}", c.at(tau)));
            let (slope, whole) = (near.slope(), c.k1 + c.common);
            println!(
                "{:8} {:3} {:10.3e} {:10.3} {:12.3} {}",
                c.scheme,
                c.r,
                c.k1,
                slope / c.k1,
                slope / whole,
                at.join(" ")
            );
            measured.push((r as f64, slope));
            expected.push((r as f64, c.k1));
            if r == 16 {
                let over = |p: &(f64, f64)| (c.tau(p.0), p.1 / (c.k1 * c.gamma * p.0));
                ratios.push(Line::new(scheme, colour, c.points.iter().map(over).collect()));
            }
        }
        slopes.push(Line::new(format!("{scheme}, measured"), colour, measured));
        slopes.push(Line::new("", colour, expected).dashed());
    }
    ratios.push(Line::new("the law", 6, vec![(ratios[0].points[0].0, 1.0), (FAR, 1.0)]).dashed());
    let panels = [
        Panel {
            title: "slope of ν[ΔW] over γ (dashed: k₁)".into(),
            x: "rank",
            y: "",
            log_x: true,
            log_y: true,
            legend: SeriesLabelPosition::LowerRight,
            lines: slopes,
        },
        Panel {
            title: "ν[ΔW] over k₁γt, r = 16".into(),
            x: "τ = γ·m·t",
            y: "",
            log_x: true,
            log_y: true,
            legend: SeriesLabelPosition::UpperLeft,
            lines: ratios,
        },
    ];
    figure(&plots.join("growth.svg"), &panels, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slopes_are_k1_while_little_has_moved_and_more_after_that() {
        for scheme in SCHEMES {
            for r in [4, 64] {
                let near = course(scheme, r, 60, NEAR).unwrap();
                let slope = near.slope() / (near.k1 + near.common);
                assert!((slope - 1.0).abs() < 0.1, "{scheme} r = {r}: {slope}");
                let far = course(scheme, r, 200, FAR).unwrap();
                assert!(far.at(1.0) > 1.5 && far.at(3.0) > 10.0, "{scheme} r = {r}: {} {}", far.at(1.0), far.at(3.0));
            }
        }
    }
}
