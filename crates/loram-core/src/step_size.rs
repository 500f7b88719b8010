//! The size of a run's first steps as a function of its learning rate, and the rates at which runs move the weights alike.
//!
//! D(η) = exp(mean_l ln(L_l·η + q_l·η²)), a share of the weights' norm: the geometric mean over the layers. L_l·η is the first
//! step at the initial factors, and q_l·η² what A and B add once both have moved by η, which is all that a scheme with
//! B₀ = 0 has of its A. Runs of equal D move the weights alike, whatever their scheme, rank or scaling; the terms in q are the
//! rank laws of maximal-update adaptation (2602.06204), those in L the first steps of 2507.06558.

use crate::equivalence::Optimizer;
use crate::growth::InitMagnitude;
use serde::{Deserialize, Serialize};

/// The terms of one layer's step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Terms {
    first: f64,
    second: f64,
}

/// D(η) of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepSize {
    layers: Vec<Terms>,
}

impl StepSize {
    /// No layers yet.
    pub fn new() -> StepSize {
        StepSize::default()
    }

    /// Adds a layer (n, m) with an adapter whose factors begin as `init`, at `k_a` and `k_b` times the run's learning rate (0
    /// for a factor that is not trained).
    /// Under SGD the step is that for a gradient with ν\[∇_W\] = 1, and tells only how two runs on the same model compare.
    /// Layers that do not move, or whose weight (‖W‖_F = `norm`) is 0, are left out.
    pub fn add(&mut self, optimizer: Optimizer, init: &InitMagnitude, (n, m): (usize, usize), norm: f64, k: [f64; 2]) {
        let entries = (n * m) as f64;
        let [k_a, k_b] = k;
        let first = (init.first_step(optimizer, k_a, k_b) * entries).sqrt() / norm;
        let second = match optimizer {
            Optimizer::Adam => init.scaling.abs() * init.r as f64 * k_a * k_b * entries.sqrt() / norm,
            Optimizer::Sgd => 0.0,
        };
        self.push(first, second);
    }

    /// Adds a layer (n, m) whose weight is trained itself: √(nm)·η/‖W‖_F under Adam.
    pub fn add_full(&mut self, (n, m): (usize, usize), norm: f64) {
        self.push(((n * m) as f64).sqrt() / norm, 0.0);
    }

    fn push(&mut self, first: f64, second: f64) {
        if first.is_finite() && second.is_finite() && first + second > 0.0 {
            self.layers.push(Terms { first, second });
        }
    }

    /// True when no layer moves.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// D at a learning rate; 0 without layers.
    pub fn at(&self, learning_rate: f64) -> f64 {
        if self.layers.is_empty() || learning_rate <= 0.0 {
            return 0.0;
        }
        let log = |l: &Terms| libm::log(l.first * learning_rate + l.second * learning_rate * learning_rate);
        libm::exp(self.layers.iter().map(log).sum::<f64>() / self.layers.len() as f64)
    }

    /// The learning rate at which D is `size`; `None` without layers, or for a size that is not above 0.
    pub fn rate(&self, size: f64) -> Option<f64> {
        if self.layers.is_empty() || size.is_nan() || size <= 0.0 || size.is_infinite() {
            return None;
        }
        // D rises with η, and in proportion to it or faster: the root is bracketed by doubling
        let (mut low, mut high) = (1e-6, 1e-6);
        while self.at(high) < size {
            high *= 4.0;
        }
        while self.at(low) > size {
            low /= 4.0;
        }
        for _ in 0..100 {
            let middle = (low * high).sqrt();
            match self.at(middle) < size {
                true => low = middle,
                false => high = middle,
            }
        }
        Some((low * high).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init(scaling: f64, r: usize, nu_a: f64, nu_b: f64) -> InitMagnitude {
        InitMagnitude { scaling, r, k1_a: nu_b, k1_b: nu_a, nu_a, nu_b }
    }

    #[test]
    fn the_rate_of_a_size_is_its_inverse() {
        let mut d = StepSize::new();
        d.add(Optimizer::Adam, &init(2.0, 4, 0.01, 0.0), (30, 20), 3.0, [1.0, 16.0]);
        d.add(Optimizer::Adam, &init(0.5, 8, 0.02, 0.03), (20, 40), 5.0, [1.0, 1.0]);
        d.add_full((10, 10), 1.0);
        for size in [1e-9, 1e-4, 3e-3, 0.5, 40.0] {
            let rate = d.rate(size).unwrap();
            assert!((d.at(rate) / size - 1.0).abs() < 1e-9, "{size} {rate}");
        }
        assert!(d.at(2e-3) > 2.0 * d.at(1e-3));
        assert_eq!((d.rate(0.0), d.rate(f64::NAN), StepSize::new().rate(1e-3)), (None, None, None));
        assert_eq!((d.at(0.0), StepSize::new().at(1.0)), (0.0, 0.0));
        assert!(StepSize::new().is_empty());
        let before = d.clone();
        d.add_full((10, 10), 0.0);
        assert_eq!(d, before, "a weight of 0 has no share");
    }

    /// The formulas of single layers, written out.
    #[test]
    fn terms_of_a_layer() {
        let (n, m, r, s, norm) = (30usize, 20usize, 4usize, 2.0, 3.0);
        let mut d = StepSize::new();
        d.add(Optimizer::Adam, &init(s, r, 0.01, 0.04), (n, m), norm, [1.0, 3.0]);
        let root = ((n * m) as f64).sqrt();
        let (first, second) =
            (s * root * (r as f64 * (9.0 * 0.01 + 0.04)).sqrt() / norm, s * r as f64 * 3.0 * root / norm);
        for rate in [1e-4, 1e-1] {
            assert!((d.at(rate) / (first * rate + second * rate * rate) - 1.0).abs() < 1e-12);
        }
        // a frozen A adds nothing of second order
        let mut frozen = StepSize::new();
        frozen.add(Optimizer::Adam, &init(s, r, 0.01, 0.04), (n, m), norm, [0.0, 3.0]);
        let first = s * root * (r as f64 * 9.0 * 0.01).sqrt() / norm;
        assert!((frozen.at(0.1) / (first * 0.1) - 1.0).abs() < 1e-12);
        // under SGD sizes compare, by √(s⁴k₁)
        let sgd = |init: InitMagnitude| {
            let mut d = StepSize::new();
            d.add(Optimizer::Sgd, &init, (n, m), norm, [1.0, 1.0]);
            d
        };
        let (one, four) = (sgd(init(1.0, r, 0.02, 0.0)), sgd(init(1.0, r, 0.08, 0.0)));
        assert!((four.at(1.0) / one.at(1.0) - 2.0).abs() < 1e-12);
    }
}
