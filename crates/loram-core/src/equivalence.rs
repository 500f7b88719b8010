//! Parameter-scaling equivalence (Proposition 1 of 2507.06558): settings that differ in scaling, initialisation and rates and have
//! the same ΔW at every step.
//!
//! Clipping by the global norm of the gradient is not invariant, and stays outside.

use serde::{Deserialize, Serialize};

/// A kind of optimiser step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Steps along the gradient, with or without momentum.
    Sgd,
    /// Adam and AdamW: steps that do not depend on the gradient's size.
    Adam,
}

/// The settings of a run that the equivalence changes. Training starts from `init_a`·A₀ and `init_b`·B₀.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    /// Factor on B·A.
    pub scaling: f64,
    /// Factor on A₀.
    pub init_a: f64,
    /// Factor on B₀.
    pub init_b: f64,
    /// Learning rate of A.
    pub lr_a: f64,
    /// Learning rate of B.
    pub lr_b: f64,
    /// Decoupled weight decay of A.
    pub decay_a: f64,
    /// Decoupled weight decay of B.
    pub decay_b: f64,
    /// Adam's ε for A.
    pub epsilon_a: f64,
    /// Adam's ε for B.
    pub epsilon_b: f64,
}

impl Setting {
    /// One rate, decay and ε for both factors, A₀ and B₀ as they are.
    pub fn new(scaling: f64, lr: f64, decay: f64, epsilon: f64) -> Setting {
        Setting {
            scaling,
            init_a: 1.0,
            init_b: 1.0,
            lr_a: lr,
            lr_b: lr,
            decay_a: decay,
            decay_b: decay,
            epsilon_a: epsilon,
            epsilon_b: epsilon,
        }
    }

    /// The equal setting whose factors are `c_a` and `c_b` times as large, both positive: s' = s/(c_A·c_B); rates times c²
    /// under SGD and c under Adam; decay times the inverse of that; ε over c.
    pub fn rescaled(&self, optimizer: Optimizer, c_a: f64, c_b: f64) -> Setting {
        let rate = |c: f64| match optimizer {
            Optimizer::Sgd => c * c,
            Optimizer::Adam => c,
        };
        let epsilon = |e: f64, c: f64| match optimizer {
            Optimizer::Sgd => e,
            Optimizer::Adam => e / c,
        };
        Setting {
            scaling: self.scaling / (c_a * c_b),
            init_a: self.init_a * c_a,
            init_b: self.init_b * c_b,
            lr_a: self.lr_a * rate(c_a),
            lr_b: self.lr_b * rate(c_b),
            decay_a: self.decay_a / rate(c_a),
            decay_b: self.decay_b / rate(c_b),
            epsilon_a: epsilon(self.epsilon_a, c_a),
            epsilon_b: epsilon(self.epsilon_b, c_b),
        }
    }

    /// The equal setting with another scaling, shared evenly between the factors. `None` unless both have the same sign
    /// and neither is 0.
    pub fn with_scaling(&self, optimizer: Optimizer, scaling: f64) -> Option<Setting> {
        let ratio = self.scaling / scaling;
        (ratio > 0.0 && ratio.is_finite()).then(|| {
            let c = ratio.sqrt();
            Setting { scaling, ..self.rescaled(optimizer, c, c) }
        })
    }
}

/// LoRA+ (2402.12354) with η_B = `ratio`·η_A equals plain training at the same η_A and this multiple of the scaling, when
/// B₀ = 0 and nothing decays: `ratio` under Adam, √ratio under SGD.
pub fn loraplus_as_scaling(optimizer: Optimizer, ratio: f64) -> f64 {
    match optimizer {
        Optimizer::Sgd => ratio.sqrt(),
        Optimizer::Adam => ratio,
    }
}

/// The ratio η_B/η_A of LoRA+ that equals a multiple of the scaling: the inverse of [`loraplus_as_scaling`].
pub fn scaling_as_loraplus(optimizer: Optimizer, multiple: f64) -> f64 {
    match optimizer {
        Optimizer::Sgd => multiple * multiple,
        Optimizer::Adam => multiple,
    }
}

/// The `lora_alpha` without rsLoRA that has the scaling of `lora_alpha` with it: lora_alpha·√r.
pub fn rslora_as_alpha(lora_alpha: f64, r: usize) -> f64 {
    lora_alpha * (r as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    const N: usize = 6;
    const M: usize = 5;
    const R: usize = 2;

    /// ΔW over 200 steps of fitting s·B·A·x to a target, in f64.
    fn run(optimizer: Optimizer, set: &Setting, a0: &[f64], b0: &[f64]) -> Vec<Vec<f64>> {
        let target = Stream::new(9, "target", 0).normals(N * M, 1.0);
        let mut a: Vec<f64> = a0.iter().map(|x| x * set.init_a).collect();
        let mut b: Vec<f64> = b0.iter().map(|x| x * set.init_b).collect();
        let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
            (0..N * M).map(|e| set.scaling * (0..R).map(|k| b[e / M * R + k] * a[k * M + e % M]).sum::<f64>()).collect()
        };
        let start = product(&a, &b);
        let mut state = [vec![(0.0, 0.0); a.len()], vec![(0.0, 0.0); b.len()]];
        let mut out = Vec::new();
        for t in 1..=200 {
            let w = product(&a, &b);
            let g: Vec<f64> = (0..N * M).map(|e| w[e] - start[e] - target[e]).collect();
            let ga: Vec<f64> = (0..R * M)
                .map(|e| set.scaling * (0..N).map(|i| b[i * R + e / M] * g[i * M + e % M]).sum::<f64>())
                .collect();
            let gb: Vec<f64> = (0..N * R)
                .map(|e| set.scaling * (0..M).map(|j| g[e / R * M + j] * a[e % R * M + j]).sum::<f64>())
                .collect();
            for (which, (x, g)) in [(&mut a, ga), (&mut b, gb)].into_iter().enumerate() {
                let (lr, decay, epsilon) = match which {
                    0 => (set.lr_a, set.decay_a, set.epsilon_a),
                    _ => (set.lr_b, set.decay_b, set.epsilon_b),
                };
                for ((x, g), (m, v)) in x.iter_mut().zip(g).zip(&mut state[which]) {
                    *x -= lr * decay * *x;
                    *x -= lr
                        * match optimizer {
                            Optimizer::Sgd => g,
                            Optimizer::Adam => {
                                *m = 0.9 * *m + 0.1 * g;
                                *v = 0.999 * *v + 0.001 * g * g;
                                let (m, v) = (*m / (1.0 - 0.9f64.powi(t)), *v / (1.0 - 0.999f64.powi(t)));
                                m / (v.sqrt() + epsilon)
                            }
                        };
                }
            }
            let w = product(&a, &b);
            out.push(w.iter().zip(&start).map(|(w, s)| w - s).collect());
        }
        out
    }

    fn difference(x: &[Vec<f64>], y: &[Vec<f64>]) -> f64 {
        let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
        let off = |(x, y): (&Vec<f64>, &Vec<f64>)| {
            norm(&x.iter().zip(y).map(|(x, y)| x - y).collect::<Vec<_>>()) / norm(x).max(1e-300)
        };
        assert!(x.iter().chain(y).flatten().all(|x| x.is_finite()));
        x.iter().zip(y).map(off).fold(0.0, f64::max)
    }

    #[test]
    fn rescaled_runs_are_the_same_run() {
        let (a0, b0) = (Stream::new(1, "a", 0).normals(R * M, 0.5), Stream::new(2, "b", 0).normals(N * R, 0.5));
        for (optimizer, lr, decay) in [
            (Optimizer::Sgd, 0.02, 0.0),
            (Optimizer::Sgd, 0.02, 0.3),
            (Optimizer::Adam, 0.01, 0.0),
            (Optimizer::Adam, 0.01, 0.2),
        ] {
            let one = Setting::new(1.7, lr, decay, 1e-3);
            let reference = run(optimizer, &one, &a0, &b0);
            for two in [one.rescaled(optimizer, 3.0, 0.2), one.with_scaling(optimizer, 0.1).unwrap()] {
                let off = difference(&reference, &run(optimizer, &two, &a0, &b0));
                assert!(off < 1e-9, "{optimizer:?} {two:?}: {off}");
                // each entry of the table matters: the other optimiser's exponents break it
                let other = if optimizer == Optimizer::Sgd { Optimizer::Adam } else { Optimizer::Sgd };
                let wrong = one.rescaled(other, two.init_a, two.init_b);
                assert!(difference(&reference, &run(optimizer, &wrong, &a0, &b0)) > 1e-3);
            }
        }
        assert!(Setting::new(1.0, 0.1, 0.0, 0.0).with_scaling(Optimizer::Adam, -1.0).is_none());
    }

    #[test]
    fn loraplus_is_a_scaling() {
        let a0 = Stream::new(1, "a", 0).normals(R * M, 0.5);
        for optimizer in [Optimizer::Sgd, Optimizer::Adam] {
            let plain = Setting::new(1.0, 0.01, 0.0, 1e-14);
            let plus = Setting { lr_b: 0.01 * 16.0, ..plain };
            let k = loraplus_as_scaling(optimizer, 16.0);
            assert_eq!(scaling_as_loraplus(optimizer, k), 16.0);
            let scaled = Setting { scaling: k, ..plain };
            let zero = vec![0.0; N * R];
            let off = difference(&run(optimizer, &plus, &a0, &zero), &run(optimizer, &scaled, &a0, &zero));
            assert!(off < 1e-9, "{optimizer:?}: {off}");
        }
        assert_eq!(rslora_as_alpha(16.0, 16), 64.0);
    }
}
