//! How fast an update grows (Proposition 2 of 2507.06558).
//!
//! With a gradient ∇_W of independent entries of second moment σ_L², SGD at rate η moves W so that
//! ν\[ΔW_t\] ≈ s⁴·k₁·γ·t with γ = η²σ_L², as long as ΔA and ΔB are small beside A₀ and B₀. For independent zero-mean entries
//! k₁ = r·(m·σ_A⁴ + n·σ_B⁴), the part with σ_A⁴ for the training of B and the other for that of A. Full fine-tuning has
//! k₁ = 1 at s = 1.

use crate::equivalence::Optimizer;
use crate::factors::Factors;
use crate::magnitude::Update;

/// k₁ of given factors: ‖AAᵀ‖²_F/m + ‖BᵀB‖²_F/n, whatever their entries' distribution; a factor that is not trained takes
/// the other one's part away.
pub fn k1_of_factors(factors: &Factors, train_a: bool, train_b: bool) -> f64 {
    let (of_a, of_b) = Update::new(factors, None, 1.0).gram_squares();
    let part = |on: bool, squares: f64, len: usize| if on { squares / len as f64 } else { 0.0 };
    part(train_b, of_a, factors.m) + part(train_a, of_b, factors.n)
}

/// Facts about a layer that the formula of a scheme's magnitude may need.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerFacts<'a> {
    /// Output features.
    pub n: usize,
    /// Input features.
    pub m: usize,
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// ν\[W\].
    pub nu_w: f64,
    /// Singular values, descending, when they are known.
    pub sigma: Option<&'a [f64]>,
    /// The module is an embedding.
    pub embedding: bool,
}

/// Figures of an initialisation that decide how far training moves the weight.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InitMagnitude {
    /// Factor on B·A.
    pub scaling: f64,
    /// Rank.
    pub r: usize,
    /// The part of k₁ (at s = 1) that the training of A has, ‖BᵀB‖²_F/n; 0 when A is not trained.
    pub k1_a: f64,
    /// The part of k₁ that the training of B has, ‖AAᵀ‖²_F/m; 0 when B is not trained.
    pub k1_b: f64,
    /// ν\[A₀\].
    pub nu_a: f64,
    /// ν\[B₀\].
    pub nu_b: f64,
}

impl InitMagnitude {
    /// Returns the magnitude of A₀ = 0 and B₀ = 0, to be filled in.
    pub fn zero(f: &LayerFacts<'_>) -> InitMagnitude {
        InitMagnitude { scaling: f.scaling, r: f.r, k1_a: 0.0, k1_b: 0.0, nu_a: 0.0, nu_b: 0.0 }
    }

    /// Returns the magnitude of factors of independent zero-mean entries with these variances.
    pub fn independent(f: &LayerFacts<'_>, of_a: f64, of_b: f64) -> InitMagnitude {
        let (n, m, r) = (f.n as f64, f.m as f64, f.r as f64);
        let (k1_a, k1_b) = (r * n * of_b * of_b, r * m * of_a * of_a);
        InitMagnitude { k1_a, k1_b, nu_a: of_a, nu_b: of_b, ..InitMagnitude::zero(f) }
    }

    /// Returns the magnitude of factors that take √(σ/s) of each of these singular triples: ‖AAᵀ‖²_F = Σσ²/s² and
    /// ‖A‖²_F = Σσ/s, exactly.
    pub fn of_triples(f: &LayerFacts<'_>, sigma: &[f64]) -> InitMagnitude {
        let (n, m, r, s) = (f.n as f64, f.m as f64, f.r as f64, f.scaling);
        let (sum, squares) = (sigma.iter().sum::<f64>() / s, sigma.iter().map(|x| x * x).sum::<f64>() / (s * s));
        let (k1_a, k1_b, nu_a, nu_b) = (squares / n, squares / m, sum / (r * m), sum / (r * n));
        InitMagnitude { k1_a, k1_b, nu_a, nu_b, ..InitMagnitude::zero(f) }
    }

    /// Returns the magnitude of the same initialisation with A₀ and B₀ multiplied.
    pub fn scaled(&self, a: f64, b: f64) -> InitMagnitude {
        InitMagnitude {
            k1_a: self.k1_a * b.powi(4),
            k1_b: self.k1_b * a.powi(4),
            nu_a: self.nu_a * a * a,
            nu_b: self.nu_b * b * b,
            ..*self
        }
    }

    /// k₁ at s = 1.
    pub fn k1(&self) -> f64 {
        self.k1_a + self.k1_b
    }

    /// Expected ν of the first step's change of ΔW, at rates `lr_a` and `lr_b`: under SGD s⁴·(lr_A²·k₁_A + lr_B²·k₁_B)
    /// for a gradient with ν\[∇_W\] = 1 (full fine-tuning: lr²), under Adam [`adam_step`].
    pub fn first_step(&self, optimizer: Optimizer, lr_a: f64, lr_b: f64) -> f64 {
        match optimizer {
            Optimizer::Sgd => self.scaling.powi(4) * (lr_a * lr_a * self.k1_a + lr_b * lr_b * self.k1_b),
            Optimizer::Adam => {
                let trained = |k1: f64, lr: f64| if k1 > 0.0 { lr } else { 0.0 };
                let (lr_a, lr_b) = (trained(self.k1_a, lr_a), trained(self.k1_b, lr_b));
                adam_step(self.scaling, self.r, lr_a, lr_b, self.nu_a, self.nu_b)
            }
        }
    }
}

/// ν\[ΔW\] after `steps` of SGD at rate `lr`, first order in `steps`: s⁴·k₁·lr²·σ_L²·steps. `grad_nu` is ν\[∇_W\] = σ_L².
pub fn sgd(k1: f64, scaling: f64, lr: f64, grad_nu: f64, steps: f64) -> f64 {
    scaling.powi(4) * k1 * lr * lr * grad_nu * steps
}

/// ν of one step of Adam, whose steps have entries of about ±lr: s²·r·(lr_B²·ν\[A\] + lr_A²·ν\[B\]). A factor that is not
/// trained has the rate 0.
pub fn adam_step(scaling: f64, r: usize, lr_a: f64, lr_b: f64, nu_a: f64, nu_b: f64) -> f64 {
    scaling * scaling * r as f64 * (lr_b * lr_b * nu_a + lr_a * lr_a * nu_b)
}

/// The largest k₁ of an initialisation whose product has at most the magnitude of W itself, as those of LoRAM and PiSSA have: Q = 1,
/// which no spectrum exceeds (Cauchy–Schwarz).
pub fn largest_k1(n: usize, m: usize, nu_w: f64) -> f64 {
    (n + m) as f64 * nu_w
}

/// The largest share of ‖∇_W‖²_F that a matrix of rank `rank` can hold, for a gradient (n, m) of independent entries of
/// one variance: rank·(√n+√m)²/(n·m), from the largest singular value of such a matrix, and no more than 1.
pub fn rank_share(n: usize, m: usize, rank: usize) -> f64 {
    let side = (n as f64).sqrt() + (m as f64).sqrt();
    (rank as f64 * side * side / (n * m) as f64).min(1.0)
}

/// A setting that makes a run move further or less far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// The learning rates.
    Rate,
    /// The scaling s.
    Scaling,
    /// A common multiple of A₀ and B₀.
    Initialization,
}

impl Knob {
    /// The power of the knob that the magnitude of the first step is proportional to. `over_scaling` is
    /// [`SchemeSpec::over_scaling`](crate::SchemeSpec::over_scaling): such factors shrink while the scaling grows.
    pub fn power(self, optimizer: Optimizer, over_scaling: bool) -> f64 {
        match (self, optimizer, over_scaling) {
            (Knob::Rate, ..) => 2.0,
            (Knob::Scaling, Optimizer::Sgd, false) | (Knob::Initialization, Optimizer::Sgd, _) => 4.0,
            (Knob::Scaling, Optimizer::Adam, false) | (Knob::Initialization, Optimizer::Adam, _) => 2.0,
            (Knob::Scaling, Optimizer::Sgd, true) => 2.0,
            (Knob::Scaling, Optimizer::Adam, true) => 1.0,
        }
    }

    /// The multiple of the knob's value at which a first step of magnitude `own` becomes one of `wanted`. NaN or infinite
    /// when `own` is 0.
    pub fn multiple(self, optimizer: Optimizer, over_scaling: bool, own: f64, wanted: f64) -> f64 {
        (wanted / own).powf(1.0 / self.power(optimizer, over_scaling))
    }
}

/// The rate at which a run whose magnitude is `own` at rate `lr` reaches `wanted`: magnitudes go with the square of the
/// rate, under SGD and under Adam. NaN when `own` is 0.
pub fn matching_lr(lr: f64, own: f64, wanted: f64) -> f64 {
    lr * Knob::Rate.multiple(Optimizer::Adam, false, own, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Stream;

    /// The law itself: SGD on random gradients, ν\[ΔW_t\] against s⁴·k₁·γ·t.
    #[test]
    fn sgd_follows_the_law() {
        let (n, m, r, s, lr, steps) = (60, 80, 6, 1.5, 1e-3, 20);
        let normal = |k: u64, len: usize, std: f64| Stream::new(k, "g", 0).normals(len, std);
        let (a0, b0) = (normal(1, r * m, 0.3), normal(2, n * r, 0.2));
        let (mut a, mut b) = (a0.clone(), b0.clone());
        for t in 0..steps {
            let g = normal(100 + t, n * m, 1.0);
            let (mut da, mut db) = (vec![0.0; r * m], vec![0.0; n * r]);
            for i in 0..n {
                for j in 0..m {
                    for k in 0..r {
                        da[k * m + j] += s * b[i * r + k] * g[i * m + j];
                        db[i * r + k] += s * g[i * m + j] * a[k * m + j];
                    }
                }
            }
            a.iter_mut().zip(da).for_each(|(x, d)| *x -= lr * d);
            b.iter_mut().zip(db).for_each(|(x, d)| *x -= lr * d);
        }
        let f = |x: &[f64]| x.iter().map(|&x| x as f32).collect::<Vec<f32>>();
        let factors = |a: &[f64], b: &[f64]| Factors { n, m, r, a: f(a), b: f(b) };
        let init = factors(&a0, &b0);
        let measured = Update::new(&factors(&a, &b), Some(&init), s).nu();
        let predicted = sgd(k1_of_factors(&init, true, true), s, lr, 1.0, steps as f64);
        assert!((measured / predicted - 1.0).abs() < 0.1, "{measured} {predicted}");
        assert!((matching_lr(2e-4, 1.0, 4.0) - 4e-4).abs() < 1e-18);
        assert!((adam_step(2.0, 4, 1e-3, 0.0, 5.0, 0.25) - 4e-6).abs() < 1e-18);
    }
}
