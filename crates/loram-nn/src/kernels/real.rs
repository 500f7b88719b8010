//! The number types that the kernels work in.

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

use pulp::Simd;

/// A floating point type with the functions that the kernels need: `f32` for work, `f64` for checks.
///
/// The `f32` functions are branch-free, so that loops over them vectorise; they differ from the exact value by at most
/// 2 units in the last place, and NaN stays NaN.
pub trait Real:
    Copy
    + Send
    + Sync
    + Default
    + PartialEq
    + PartialOrd
    + Debug
    + Display
    + bytemuck::Pod
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + 'static
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// −∞.
    const NEG_INFINITY: Self;
    /// "f32" or "f64".
    const NAME: &'static str;

    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The same value in `f64`.
    fn to_f64(self) -> f64;
    /// The nearest value of this type.
    fn from_f32(x: f32) -> Self;
    /// The nearest `f32`.
    fn to_f32(self) -> f32;
    /// `self · a + b`, rounded once.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// Natural logarithm (from the standard library: not for inner loops).
    fn ln(self) -> Self;
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// Error function.
    fn erf(self) -> Self;
    /// A vector register of this type.
    type Vector<S: Simd>: bytemuck::Pod;
    /// All lanes `x`.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;
    /// `a·b + c` in every lane, rounded once.
    fn vector_mul_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;
    /// `a + b` in every lane.
    fn vector_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;
    /// The first lanes from a slice shorter than a register, the others 0.
    fn load_part<S: Simd>(simd: S, from: &[Self]) -> Self::Vector<S>;
    /// The first lanes into a slice shorter than a register.
    fn store_part<S: Simd>(simd: S, to: &mut [Self], v: Self::Vector<S>);
    /// The larger of two; `other` when `self` is NaN.
    #[inline(always)]
    fn max_of(self, other: Self) -> Self {
        if self > other { self } else { other }
    }
}

/// The values as `f32`, when that is their type.
pub(crate) fn f32s<T: Real>(values: &mut [T]) -> Option<&mut [f32]> {
    (T::NAME == f32::NAME).then(|| bytemuck::cast_slice_mut(values))
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const NEG_INFINITY: f32 = f32::NEG_INFINITY;
    const NAME: &'static str = "f32";
    type Vector<S: Simd> = S::f32s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f32) -> S::f32s {
        simd.splat_f32s(x)
    }
    #[inline(always)]
    fn vector_mul_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s, c: S::f32s) -> S::f32s {
        simd.mul_add_f32s(a, b, c)
    }
    #[inline(always)]
    fn vector_add<S: Simd>(simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        simd.add_f32s(a, b)
    }
    #[inline(always)]
    fn load_part<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
        simd.partial_load_f32s(from)
    }
    #[inline(always)]
    fn store_part<S: Simd>(simd: S, to: &mut [f32], v: S::f32s) {
        simd.partial_store_f32s(to, v);
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f32 {
        x
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        f32::mul_add(self, a, b)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        exp32(self)
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        tanh32(self)
    }
    #[inline(always)]
    fn erf(self) -> f32 {
        erf32(self)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const NEG_INFINITY: f64 = f64::NEG_INFINITY;
    const NAME: &'static str = "f64";
    type Vector<S: Simd> = S::f64s;

    #[inline(always)]
    fn splat<S: Simd>(simd: S, x: f64) -> S::f64s {
        simd.splat_f64s(x)
    }
    #[inline(always)]
    fn vector_mul_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s, c: S::f64s) -> S::f64s {
        simd.mul_add_f64s(a, b, c)
    }
    #[inline(always)]
    fn vector_add<S: Simd>(simd: S, a: S::f64s, b: S::f64s) -> S::f64s {
        simd.add_f64s(a, b)
    }
    #[inline(always)]
    fn load_part<S: Simd>(simd: S, from: &[f64]) -> S::f64s {
        simd.partial_load_f64s(from)
    }
    #[inline(always)]
    fn store_part<S: Simd>(simd: S, to: &mut [f64], v: S::f64s) {
        simd.partial_store_f64s(to, v);
    }

    #[inline(always)]
    fn from_f64(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn to_f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> f64 {
        f64::from(x)
    }
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self as f32
    }
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        f64::mul_add(self, a, b)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn erf(self) -> f64 {
        libm::erf(self)
    }
}

/// Horner's rule, highest coefficient first.
#[inline(always)]
fn poly<const N: usize>(x: f32, c: [f32; N]) -> f32 {
    let mut y = c[0];
    for &k in &c[1..] {
        y = y.mul_add(x, k);
    }
    y
}

/// eˣ by Cody–Waite reduction and the Cephes polynomial; gradual underflow and overflow to ∞ as usual.
#[inline(always)]
fn exp32(x: f32) -> f32 {
    // adding 1.5·2²³ rounds to an integer and leaves it in the low mantissa bits
    const MAGIC: f32 = 12_582_912.0;
    // comparisons this way round let NaN through
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -105.0 { -105.0 } else { x };
    let shifted = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let p = poly(r, [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]);
    let y = (r * r).mul_add(p, r) + 1.0;
    // 2ⁿ in two factors, since n reaches from −151 to 128
    let n = (shifted.to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32);
    let half = n >> 1;
    let pow2 = |e: i32| f32::from_bits((e.wrapping_add(127) as u32) << 23);
    y * pow2(half) * pow2(n.wrapping_sub(half))
}

#[inline(always)]
fn tanh32(x: f32) -> f32 {
    let z = x * x;
    let small = poly(z, [-5.704_988_7e-3, 2.063_909e-2, -5.373_971_5e-2, 1.333_144_2e-1, -3.333_328e-1]);
    let small = (small * z).mul_add(x, x);
    let a = x.abs();
    let large = (1.0 - 2.0 / (exp32(a + a) + 1.0)).copysign(x);
    // not `a < 0.625`: NaN must take a side that keeps it, and both do
    if a > 0.625 { large } else { small }
}

/// Two polynomials, below and above 0.93, after N. Juffa's `erff` (error under 1 ulp with an exact `exp`).
#[inline(always)]
fn erf32(x: f32) -> f32 {
    let t = x.abs();
    let s = x * x;
    let hi = (-1.728_534_7e-5f32).mul_add(t, 3.831_971_3e-4);
    let lo = (-3.883_964_4e-3f32).mul_add(t, 2.425_462_2e-2);
    let r = hi.mul_add(s, lo);
    let r = poly_from(r, t, [-1.067_778_8e-1, -6.348_467e-1, -1.287_175_1e-1]);
    let large = (1.0 - exp32(r.mul_add(t, -t))).copysign(x);
    let r = poly(s, [-5.967_617e-4, 4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_25e-1, -3.761_253_3e-1, 1.283_791_7e-1]);
    let small = r.mul_add(x, x);
    if t > 0.927_734_4 { large } else { small }
}

#[inline(always)]
fn poly_from<const N: usize>(start: f32, x: f32, c: [f32; N]) -> f32 {
    let mut y = start;
    for k in c {
        y = y.mul_add(x, k);
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Largest distance from the exact value in units in the last place, over a sweep of bit patterns.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, lo: f32, hi: f32) -> f64 {
        let mut worst: f64 = 0.0;
        for i in 0..400_000 {
            let x = lo + (hi - lo) * (i as f32 / 400_000.0);
            for x in [x, x * 1e-3, x * 1e-6] {
                let want = exact(f64::from(x));
                let got = f64::from(f(x));
                let ulp = f64::from((want as f32).abs().max(f32::MIN_POSITIVE).next_up())
                    - f64::from((want as f32).abs().max(f32::MIN_POSITIVE));
                worst = worst.max((got - want).abs() / ulp);
            }
        }
        worst
    }

    #[test]
    fn f32_functions_are_within_two_units_in_the_last_place() {
        let e = worst(exp32, f64::exp, -87.0, 88.7);
        let t = worst(tanh32, f64::tanh, -10.0, 10.0);
        let r = worst(erf32, libm::erf, -5.0, 5.0);
        println!("exp {e:.2}, tanh {t:.2}, erf {r:.2} ulp");
        assert!(e < 1.5 && t < 2.0 && r < 2.0, "exp {e}, tanh {t}, erf {r}");
    }

    #[test]
    fn special_values() {
        assert_eq!(exp32(0.0), 1.0);
        assert_eq!(exp32(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp32(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp32(89.0), f32::INFINITY);
        assert_eq!(exp32(-120.0), 0.0);
        assert!((f64::from(exp32(-100.0)) - (-100f64).exp()).abs() < 1.5e-45);
        assert!(exp32(f32::NAN).is_nan() && tanh32(f32::NAN).is_nan() && erf32(f32::NAN).is_nan());
        for (x, y) in [(0.0, 0.0), (40.0, 1.0), (-40.0, -1.0), (f32::INFINITY, 1.0), (f32::NEG_INFINITY, -1.0)] {
            assert_eq!(tanh32(x), y);
            assert_eq!(erf32(x), y);
        }
    }
}
