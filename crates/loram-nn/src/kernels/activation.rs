//! Activation functions, alone and as the gate of a gated feed-forward layer (arXiv:2002.05202).

use super::{
    Real,
    par::{Rows, RowsMut, for_rows},
    simd::simd,
};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Act {
    /// x·σ(x).
    Silu,
    /// x·Φ(x) with the exact normal distribution function (arXiv:1606.08415).
    Gelu,
    /// The tanh approximation of GELU (`gelu_new`, `gelu_pytorch_tanh`).
    GeluTanh,
    /// x·σ(1.702·x), the sigmoid approximation of GELU (arXiv:1606.08415, `quick_gelu`).
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// tanh x.
    Tanh,
}

/// A function together with its derivative, as types, so that each loop is compiled for one function.
trait Curve: Copy + Send + Sync {
    fn value<T: Real>(x: T) -> T;
    /// (value, derivative).
    fn both<T: Real>(x: T) -> (T, T);
}

#[derive(Clone, Copy)]
struct Silu;
#[derive(Clone, Copy)]
struct Gelu;
#[derive(Clone, Copy)]
struct GeluTanh;
#[derive(Clone, Copy)]
struct QuickGelu;
#[derive(Clone, Copy)]
struct Relu;
#[derive(Clone, Copy)]
struct Tanh;

impl Curve for Silu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x / (T::ONE + (-x).exp())
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let s = T::ONE / (T::ONE + (-x).exp());
        let y = x * s;
        (y, (T::ONE - s).mul_add(y, s))
    }
}

impl Curve for Gelu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let half = T::from_f64(0.5) * x;
        (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf().mul_add(half, half)
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let half = T::from_f64(0.5);
        let cdf = (x * T::from_f64(std::f64::consts::FRAC_1_SQRT_2)).erf().mul_add(half, half);
        // 1/√(2π)
        let pdf = T::from_f64(0.398_942_280_401_432_7) * (x * x * -half).exp();
        // x·pdf is 0 far out, also where x² overflows
        let tail = if pdf == T::ZERO { T::ZERO } else { x * pdf };
        (x * cdf, cdf + tail)
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        let half = T::from_f64(0.5) * x;
        Self::inner(x).tanh().mul_add(half, half)
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let half = T::from_f64(0.5);
        let t = Self::inner(x).tanh();
        let slope = T::from_f64(SQRT_2_OVER_PI) * (x * x).mul_add(T::from_f64(3.0 * 0.044_715), T::ONE);
        let cdf = t.mul_add(half, half);
        let sech2 = (T::ONE - t) * (T::ONE + t);
        let tail = if sech2 == T::ZERO { T::ZERO } else { half * x * sech2 * slope };
        (x * cdf, cdf + tail)
    }
}

const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;

impl GeluTanh {
    /// √(2/π)·(x + 0.044715 x³).
    #[inline(always)]
    fn inner<T: Real>(x: T) -> T {
        let x = T::from_f64(SQRT_2_OVER_PI) * x * (x * x).mul_add(T::from_f64(0.044_715), T::ONE);
        // tanh is ±1 long before; keeps ∞ out of the polynomials
        let x = if x > T::from_f64(40.0) { T::from_f64(40.0) } else { x };
        if x < T::from_f64(-40.0) { T::from_f64(-40.0) } else { x }
    }
}

impl Curve for QuickGelu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x / (T::ONE + (x * T::from_f64(-QUICK)).exp())
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let s = T::ONE / (T::ONE + (x * T::from_f64(-QUICK)).exp());
        let y = x * s;
        (y, (T::ONE - s).mul_add(y * T::from_f64(QUICK), s))
    }
}

/// The slope of the normal distribution function at 0, nearly.
const QUICK: f64 = 1.702;

impl Curve for Relu {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        // NaN stays
        if x < T::ZERO { T::ZERO } else { x }
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        (Self::value(x), if x > T::ZERO { T::ONE } else { T::ZERO })
    }
}

impl Curve for Tanh {
    #[inline(always)]
    fn value<T: Real>(x: T) -> T {
        x.tanh()
    }
    #[inline(always)]
    fn both<T: Real>(x: T) -> (T, T) {
        let t = x.tanh();
        (t, (T::ONE - t) * (T::ONE + t))
    }
}

/// Call a generic function with the type of the curve.
macro_rules! with_curve {
    ($act:expr, $f:ident ( $($arg:expr),* )) => {
        match $act {
            Act::Silu => $f::<T, Silu>($($arg),*),
            Act::Gelu => $f::<T, Gelu>($($arg),*),
            Act::GeluTanh => $f::<T, GeluTanh>($($arg),*),
            Act::QuickGelu => $f::<T, QuickGelu>($($arg),*),
            Act::Relu => $f::<T, Relu>($($arg),*),
            Act::Tanh => $f::<T, Tanh>($($arg),*),
        }
    };
}

/// Arithmetic per element, in units of a simple operation: how early a second thread pays.
const WORK: usize = 4;

/// y = act(x).
pub fn act_forward<T: Real>(act: Act, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "act_forward");
    with_curve!(act, forward(x, y));
}

fn forward<T: Real, C: Curve>(x: &[T], y: &mut [T]) {
    let n = x.len();
    for_rows((Rows(x, 1), RowsMut(y, 1)), n, WORK, |(x, y), _| {
        simd(
            #[inline(always)]
            || {
                for (y, &x) in y.0.iter_mut().zip(x.0) {
                    *y = C::value(x);
                }
            },
        );
    });
}

/// dx = dy·act′(x).
pub fn act_backward<T: Real>(act: Act, x: &[T], dy: &[T], dx: &mut [T]) {
    assert_eq!((x.len(), dy.len()), (dx.len(), dx.len()), "act_backward");
    with_curve!(act, backward(x, dy, dx));
}

fn backward<T: Real, C: Curve>(x: &[T], dy: &[T], dx: &mut [T]) {
    let n = x.len();
    for_rows((Rows(x, 1), Rows(dy, 1), RowsMut(dx, 1)), n, WORK, |(x, dy, dx), _| {
        simd(
            #[inline(always)]
            || {
                for ((d, &x), &g) in dx.0.iter_mut().zip(x.0).zip(dy.0) {
                    *d = g * C::both(x).1;
                }
            },
        );
    });
}

/// [`act_backward`] in place: `g` holds dy and becomes dx.
pub fn act_backward_inplace<T: Real>(act: Act, x: &[T], g: &mut [T]) {
    assert_eq!(x.len(), g.len(), "act_backward_inplace");
    with_curve!(act, backward_inplace(x, g));
}

fn backward_inplace<T: Real, C: Curve>(x: &[T], g: &mut [T]) {
    let n = x.len();
    for_rows((Rows(x, 1), RowsMut(g, 1)), n, WORK, |(x, g), _| {
        simd(
            #[inline(always)]
            || {
                for (g, &x) in g.0.iter_mut().zip(x.0) {
                    *g *= C::both(x).1;
                }
            },
        );
    });
}

/// y = silu(gate)·up.
pub fn swiglu<T: Real>(gate: &[T], up: &[T], y: &mut [T]) {
    gated_forward(Act::Silu, gate, up, y);
}

/// Gradient of [`swiglu`].
pub fn swiglu_backward<T: Real>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    gated_backward(Act::Silu, gate, up, dy, dgate, dup);
}

/// [`swiglu_backward`] in place: `gate` becomes dgate, `up` becomes dup, `dy` becomes the output.
pub fn swiglu_backward_inplace<T: Real>(gate: &mut [T], up: &mut [T], dy: &mut [T]) {
    gated_backward_inplace(Act::Silu, gate, up, dy);
}

/// y = act(gate)·up.
pub fn gated_forward<T: Real>(act: Act, gate: &[T], up: &[T], y: &mut [T]) {
    assert_eq!((gate.len(), up.len()), (y.len(), y.len()), "gated_forward");
    with_curve!(act, gated(gate, up, y));
}

fn gated<T: Real, C: Curve>(gate: &[T], up: &[T], y: &mut [T]) {
    let n = y.len();
    for_rows((Rows(gate, 1), Rows(up, 1), RowsMut(y, 1)), n, WORK, |(gate, up, y), _| {
        simd(
            #[inline(always)]
            || {
                for ((y, &a), &b) in y.0.iter_mut().zip(gate.0).zip(up.0) {
                    *y = C::value(a) * b;
                }
            },
        );
    });
}

/// dgate = dy·up·act′(gate), dup = dy·act(gate).
pub fn gated_backward<T: Real>(act: Act, gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    let n = dy.len();
    assert_eq!((gate.len(), up.len(), dgate.len(), dup.len()), (n, n, n, n), "gated_backward");
    with_curve!(act, gated_back(gate, up, dy, dgate, dup));
}

fn gated_back<T: Real, C: Curve>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    let n = dy.len();
    let parts = (Rows(gate, 1), Rows(up, 1), Rows(dy, 1), RowsMut(dgate, 1), RowsMut(dup, 1));
    for_rows(parts, n, WORK, |(gate, up, dy, dgate, dup), _| {
        simd(
            #[inline(always)]
            || gated_back_run::<T, C>(gate.0, up.0, dy.0, dgate.0, dup.0),
        );
    });
}

#[inline(always)]
fn gated_back_run<T: Real, C: Curve>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    for ((((da, db), &a), &b), &g) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
        let (value, slope) = C::both(a);
        *da = g * b * slope;
        *db = g * value;
    }
}

/// [`gated_backward`] in place: `gate` becomes dgate, `up` becomes dup, `dy` becomes the output.
pub fn gated_backward_inplace<T: Real>(act: Act, gate: &mut [T], up: &mut [T], dy: &mut [T]) {
    assert_eq!((gate.len(), up.len()), (dy.len(), dy.len()), "gated_backward_inplace");
    with_curve!(act, gated_back_inplace(gate, up, dy));
}

fn gated_back_inplace<T: Real, C: Curve>(gate: &mut [T], up: &mut [T], dy: &mut [T]) {
    let n = dy.len();
    for_rows((RowsMut(gate, 1), RowsMut(up, 1), RowsMut(dy, 1)), n, WORK, |(gate, up, dy), _| {
        simd(
            #[inline(always)]
            || gated_back_run_inplace::<T, C>(gate.0, up.0, dy.0),
        );
    });
}

#[inline(always)]
fn gated_back_run_inplace<T: Real, C: Curve>(gate: &mut [T], up: &mut [T], dy: &mut [T]) {
    for ((a, b), g) in gate.iter_mut().zip(up).zip(dy) {
        let (value, slope) = C::both(*a);
        let (up, dy) = (*b, *g);
        *a = dy * up * slope;
        *b = dy * value;
        *g = value * up;
    }
}
