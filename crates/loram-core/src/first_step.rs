//! `gain: auto`: an initialisation whose first update moves the weight by a chosen share of its norm.
//!
//! The factors' gradients at A₀ = β·Φ_mᵀ, B₀ = β·Φ_n are s·β·G·Φ_m for B and s·β·Φ_nᵀ·G for A, with the gradient G of the
//! weight. Adam's first step is lr·sign of them, whatever β is, so that ‖step‖ = s·β·‖U‖ with
//! U = lr_B·sign(G·Φ_m)·Φ_mᵀ + lr_A·Φ_n·sign(Φ_nᵀ·G); under SGD it is s²·β²·‖U‖ without the signs. Either gives β.

use crate::basis::Columns;
use crate::equivalence::Optimizer;
use crate::linalg::view;
use crate::magnitude::Update;
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use serde::{Deserialize, Serialize};

/// The settings of a run that decide its first step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct FirstStep {
    /// Kind of optimiser step.
    pub optimizer: Optimizer,
    /// Peak learning rate of A.
    pub lr_a: f64,
    /// Peak learning rate of B.
    pub lr_b: f64,
    /// Share of the weight's norm that it moves, where the run has found that; for `gain: auto` without a share of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
}

impl FirstStep {
    /// Returns the β at which the first step has the norm `wanted`; `None` for a gradient of 0. G is (n, m) row-major.
    pub(crate) fn beta(&self, gradient: &[f32], of_m: &Columns, of_n: &Columns, s: f64, wanted: f64) -> Option<f64> {
        let norm = s.abs() * self.unit_step(gradient, of_m, of_n, s);
        let beta = match self.optimizer {
            Optimizer::Adam => wanted / norm,
            Optimizer::Sgd => (wanted / norm).sqrt(),
        };
        (norm > 0.0 && beta.is_finite()).then_some(beta)
    }

    /// ‖U‖, times s under SGD.
    fn unit_step(&self, gradient: &[f32], of_m: &Columns, of_n: &Columns, s: f64) -> f64 {
        let (phi_mt, phi_n) = (of_m.transposed(1.0), of_n.rows(1.0));
        let r = of_m.rank();
        let (n, m) = (phi_n.len() / r, phi_mt.len() / r);
        let g = view(gradient, n, m);
        // one thread and a fixed order: the same bits on any number of threads
        let (mut of_b, mut of_a) = (Mat::<f32>::zeros(n, r), Mat::<f32>::zeros(r, m));
        matmul(of_b.as_mut(), Accum::Replace, g, view(&phi_mt, r, m).transpose(), 1.0, Par::Seq);
        matmul(of_a.as_mut(), Accum::Replace, view(&phi_n, n, r).transpose(), g, 1.0, Par::Seq);
        // gradients of long means are tiny: their squares must not vanish
        let top = of_a
            .col_iter()
            .chain(of_b.col_iter())
            .flat_map(|c| c.iter().copied())
            .fold(0.0, |t: f32, x| t.max(x.abs()));
        let (step, back) = match self.optimizer {
            Optimizer::Adam => (f32::signum as fn(f32) -> f32, 1.0),
            Optimizer::Sgd => ((|x| x) as fn(f32) -> f32, f64::from(top) * s.abs()),
        };
        if top == 0.0 || !top.is_finite() {
            return 0.0;
        }
        let step = |x: f32, lr: f64| if x == 0.0 { 0.0 } else { step(x / top) * lr as f32 };
        // U = [δB, Φ_n]·[Φ_mᵀ; δA]
        let mut tall = phi_mt.clone();
        tall.extend((0..r).flat_map(|k| of_a.row(k).iter().map(|&x| step(x, self.lr_a)).collect::<Vec<_>>()));
        let mut wide = Vec::with_capacity(2 * phi_n.len());
        for (i, row) in phi_n.chunks_exact(r).enumerate() {
            wide.extend(of_b.row(i).iter().map(|&x| step(x, self.lr_b)));
            wide.extend_from_slice(row);
        }
        back * Update::of_product(&tall, &wide, n, m, 2 * r, 1.0).frobenius()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::basis::Basis;
    use crate::rng::Stream;

    /// The step itself, formed in full from factors at the β found.
    #[test]
    fn the_first_step_has_the_norm_that_was_asked_for() {
        for (n, m, r, s, basis) in
            [(40, 24, 4, 1.0, Basis::Dst), (7, 31, 7, 0.25, Basis::Gaussian), (5, 5, 1, 3.0, Basis::Dct)]
        {
            let g: Vec<f32> = Stream::new(1, "g", 0).normals(n * m, 1e-12).iter().map(|&x| x as f32).collect();
            let (of_m, of_n) =
                (basis.columns(m, r, &mut Stream::new(2, "x", 0)), basis.columns(n, r, &mut Stream::new(2, "x", 1)));
            for optimizer in [Optimizer::Adam, Optimizer::Sgd] {
                let first = FirstStep { optimizer, lr_a: 1e-3, lr_b: 4e-3, share: None };
                let beta = first.beta(&g, &of_m, &of_n, s, 0.02).unwrap();
                let (a, b) = (of_m.transposed(beta), of_n.rows(beta));
                let at = |i: usize, j: usize| f64::from(g[i * m + j]);
                let rule = |x: f64| if optimizer == Optimizer::Adam { x.signum() } else { x };
                let da = |k: usize, j: usize| {
                    first.lr_a * rule((0..n).map(|i| s * f64::from(b[i * r + k]) * at(i, j)).sum())
                };
                let db = |i: usize, k: usize| {
                    first.lr_b * rule((0..m).map(|j| s * at(i, j) * f64::from(a[k * m + j])).sum())
                };
                let mut squares = 0.0;
                let da: Vec<f64> = (0..r * m).map(|x| da(x / m, x % m)).collect();
                let db: Vec<f64> = (0..n * r).map(|x| db(x / r, x % r)).collect();
                for i in 0..n {
                    for j in 0..m {
                        let x: f64 = (0..r)
                            .map(|k| db[i * r + k] * f64::from(a[k * m + j]) + f64::from(b[i * r + k]) * da[k * m + j])
                            .sum();
                        squares += (s * x) * (s * x);
                    }
                }
                let found = squares.sqrt();
                assert!((found / 0.02 - 1.0).abs() < 1e-4, "{n}x{m} {optimizer:?}: {found}");
            }
            let none = FirstStep { optimizer: Optimizer::Adam, lr_a: 1e-3, lr_b: 1e-3, share: None };
            assert_eq!(none.beta(&vec![0.0; n * m], &of_m, &of_n, s, 0.02), None);
        }
    }
}
