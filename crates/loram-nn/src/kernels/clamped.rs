//! The clamped gate of gpt-oss: g·σ(α·g)·(u + 1), with g at most `limit` and u within ±`limit`.

use super::{
    Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};

/// Its constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clamped {
    /// α.
    pub alpha: f64,
    /// The bound of both inputs.
    pub limit: f64,
}

/// Arithmetic per element, in units of a simple operation.
const WORK: usize = 5;

#[inline(always)]
fn least<T: Real>(x: T, bound: T) -> T {
    // NaN stays
    if x > bound { bound } else { x }
}

#[inline(always)]
fn within<T: Real>(x: T, limit: T) -> T {
    if x < -limit { -limit } else { least(x, limit) }
}

/// y = the gate of `gate` and `up`.
pub fn clamped_forward<T: Real>(how: Clamped, gate: &[T], up: &[T], y: &mut [T]) {
    let n = y.len();
    assert_eq!((gate.len(), up.len()), (n, n), "clamped_forward");
    let (alpha, limit) = (T::from_f64(how.alpha), T::from_f64(how.limit));
    for_rows((Rows(gate, 1), Rows(up, 1), RowsMut(y, 1)), n, WORK, |(gate, up, y), _| {
        simd(
            #[inline(always)]
            || {
                for ((y, &g), &u) in y.0.iter_mut().zip(gate.0).zip(up.0) {
                    let (g, u) = (least(g, limit), within(u, limit));
                    // as the backward pass has it, bit for bit
                    *y = g * (T::ONE / (T::ONE + (-(alpha * g)).exp())) * (u + T::ONE);
                }
            },
        );
    });
}

/// Gradient of [`clamped_forward`] in place: `gate` becomes dgate, `up` becomes dup, `dy` becomes the output. As in torch, what lies
/// at a bound has a gradient, and what lies beyond has none.
pub fn clamped_backward_inplace<T: Real>(how: Clamped, gate: &mut [T], up: &mut [T], dy: &mut [T]) {
    let n = dy.len();
    assert_eq!((gate.len(), up.len()), (n, n), "clamped_backward_inplace");
    let (alpha, limit) = (T::from_f64(how.alpha), T::from_f64(how.limit));
    for_rows((RowsMut(gate, 1), RowsMut(up, 1), RowsMut(dy, 1)), n, WORK, |(gate, up, dy), _| {
        simd(
            #[inline(always)]
            || {
                for ((a, b), d) in gate.0.iter_mut().zip(up.0).zip(dy.0) {
                    let (g, u) = (least(*a, limit), within(*b, limit));
                    let s = T::ONE / (T::ONE + (-(alpha * g)).exp());
                    let value = g * s;
                    let slope = (T::ONE - s).mul_add(value * alpha, s);
                    let dy = *d;
                    *d = value * (u + T::ONE);
                    *a = if *a > limit { T::ZERO } else { dy * (u + T::ONE) * slope };
                    *b = if *b > limit || *b < -limit { T::ZERO } else { dy * value };
                }
            },
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_central_differences() {
        let how = Clamped { alpha: 1.702, limit: 1.5 };
        let value = |g: f64, u: f64| {
            let mut y = [0.0];
            clamped_forward(how, &[g], &[u], &mut y);
            y[0]
        };
        let h = 1e-6;
        for g in [-3.0, -1.4, 0.0, 0.3, 1.4, 2.0] {
            for u in [-2.0, -1.0, 0.1, 1.4, 1.6] {
                let (mut dg, mut du, mut dy) = ([g], [u], [0.7]);
                clamped_backward_inplace(how, &mut dg, &mut du, &mut dy);
                let want =
                    [(value(g + h, u) - value(g - h, u)) / (2.0 * h), (value(g, u + h) - value(g, u - h)) / (2.0 * h)];
                assert!((dg[0] - 0.7 * want[0]).abs() < 1e-8, "{g} {u}: {} {}", dg[0], want[0]);
                assert!((du[0] - 0.7 * want[1]).abs() < 1e-8, "{g} {u}: {} {}", du[0], want[1]);
                assert_eq!(dy[0], value(g, u));
            }
        }
        // the formula, written otherwise
        let (g, u) = (0.8f64, -0.4f64);
        assert!((value(g, u) - (u + 1.0) * g / (1.0 + (-1.702 * g).exp())).abs() < 1e-12);
    }
}
