//! One optimiser step over a parameter, with the formulas of `torch.optim`.

use super::{
    Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};

/// AdamW (arXiv:1711.05101) as `torch.optim.AdamW` computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// Step number `step` (from 1) of AdamW on parameter `p` with gradient `g` and state `m`, `v` (0 at the start):
/// p ← p·(1 − lr·wd); m ← m + (1−β₁)(g − m); v ← β₂v + (1−β₂)g²; p ← p − lr/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + eps).
pub fn adamw_step<T: Real>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], how: &AdamW, step: u64) {
    let n = p.len();
    assert_eq!((g.len(), m.len(), v.len()), (n, n, n), "adamw_step");
    assert!(step > 0, "steps count from 1");
    let t = step as f64;
    let decay = T::from_f64(1.0 - how.lr * how.weight_decay);
    let (first, b2, second) = (T::from_f64(1.0 - how.beta1), T::from_f64(how.beta2), T::from_f64(1.0 - how.beta2));
    let size = T::from_f64(how.lr / (1.0 - how.beta1.powf(t)));
    let root = T::from_f64((1.0 - how.beta2.powf(t)).sqrt());
    let eps = T::from_f64(how.eps);
    for_rows((RowsMut(p, 1), Rows(g, 1), RowsMut(m, 1), RowsMut(v, 1)), n, 4, |(p, g, m, v), _| {
        simd(
            #[inline(always)]
            || {
                for (((p, &g), m), v) in p.0.iter_mut().zip(g.0).zip(m.0).zip(v.0) {
                    *m = (g - *m).mul_add(first, *m);
                    *v = (g * g).mul_add(second, *v * b2);
                    let denominator = v.sqrt() / root + eps;
                    *p = *p * decay - size * (*m / denominator);
                }
            },
        );
    });
}

/// Stochastic gradient descent as `torch.optim.SGD` computes it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Learning rate of this step.
    pub lr: f64,
    /// Momentum; 0 needs no buffer.
    pub momentum: f64,
    /// Share of the gradient kept out of the momentum.
    pub dampening: f64,
    /// Look ahead.
    pub nesterov: bool,
    /// L2 penalty, added to the gradient.
    pub weight_decay: f64,
}

/// Step number `step` (from 1) of SGD on `p` with gradient `g`: g ← g + wd·p; with momentum buf ← μ·buf + (1−d)·g (buf = g
/// in the first step), g ← buf, or g + μ·buf with `nesterov`; p ← p − lr·g.
///
/// `buffer` is needed when `how.momentum` is not 0, and otherwise left alone.
pub fn sgd_step<T: Real>(p: &mut [T], g: &[T], buffer: Option<&mut [T]>, how: &Sgd, step: u64) {
    let n = p.len();
    assert_eq!(g.len(), n, "sgd_step");
    assert!(step > 0, "steps count from 1");
    let (lr, wd) = (T::from_f64(how.lr), T::from_f64(how.weight_decay));
    if how.momentum == 0.0 {
        for_rows((RowsMut(p, 1), Rows(g, 1)), n, 1, |(p, g), _| {
            simd(
                #[inline(always)]
                || {
                    for (p, &g) in p.0.iter_mut().zip(g.0) {
                        *p -= lr * p.mul_add(wd, g);
                    }
                },
            );
        });
        return;
    }
    let buffer = buffer.expect("momentum needs a buffer");
    assert_eq!(buffer.len(), n, "sgd_step: buffer");
    let momentum = T::from_f64(how.momentum);
    // the first step puts the gradient itself into the buffer
    let (keep, add) = if step == 1 { (T::ZERO, T::ONE) } else { (momentum, T::from_f64(1.0 - how.dampening)) };
    for_rows((RowsMut(p, 1), Rows(g, 1), RowsMut(buffer, 1)), n, 2, |(p, g, b), _| {
        simd(
            #[inline(always)]
            || {
                for ((p, &g), b) in p.0.iter_mut().zip(g.0).zip(b.0) {
                    let g = p.mul_add(wd, g);
                    *b = b.mul_add(keep, add * g);
                    let direction = if how.nesterov { b.mul_add(momentum, g) } else { *b };
                    *p -= lr * direction;
                }
            },
        );
    });
}
