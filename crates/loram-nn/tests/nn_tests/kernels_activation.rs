//! Activation functions, alone and as gates.

use super::common::{self, any_threads, cases, close, data, to_f64, tolerance};
use loram_nn::kernels::Real;
use loram_nn::kernels::activation::*;
use proptest::prelude::*;

const ALL: [Act; 6] = [Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu, Act::Relu, Act::Tanh];

fn naive(act: Act, x: f64) -> f64 {
    match act {
        Act::Silu => x / (1.0 + (-x).exp()),
        Act::Gelu => 0.5 * x * libm::erfc(-x / 2f64.sqrt()),
        Act::GeluTanh => 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        Act::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
        Act::Relu => x.max(0.0),
        Act::Tanh => x.tanh(),
    }
}

fn naive_slope(act: Act, x: f64) -> f64 {
    common::slope(&[x], &[1.0], &|x| naive(act, x[0]))
}

/// Inputs up to ±`size`, away from the corner of relu, where differences mislead.
fn inputs<T: Real>(n: usize, size: f64) -> Vec<T> {
    data::<f64>(n, 1).iter().map(|x| T::from_f64((x + x.signum() * 1e-3) * size)).collect()
}

fn check<T: Real>(act: Act, n: usize, size: f64) {
    let (x, up, dy) = (inputs::<T>(n, size), data::<T>(n, 2), data::<T>(n, 3));
    let tol = tolerance::<T>();
    // differences are not as exact as formulas
    let slope_tol = tol.max(1e-8);
    let value = |i: usize| naive(act, x[i].to_f64());
    let slope = |i: usize| naive_slope(act, x[i].to_f64());
    let list = |f: &dyn Fn(usize) -> f64| (0..n).map(f).collect::<Vec<f64>>();
    let new = || vec![T::from_f64(f64::NAN); n];

    let y = any_threads(|| {
        let mut y = new();
        act_forward(act, &x, &mut y);
        y
    });
    close(&y, &list(&value), tol);
    let dx = any_threads(|| {
        let mut dx = new();
        act_backward(act, &x, &dy, &mut dx);
        dx
    });
    close(&dx, &list(&|i| dy[i].to_f64() * slope(i)), slope_tol);
    let inplace = any_threads(|| {
        let mut g = dy.clone();
        act_backward_inplace(act, &x, &mut g);
        g
    });
    assert_eq!(inplace, dx);

    let y = any_threads(|| {
        let mut y = new();
        gated_forward(act, &x, &up, &mut y);
        y
    });
    close(&y, &list(&|i| value(i) * up[i].to_f64()), tol);
    let grads = any_threads(|| {
        let (mut dgate, mut dup) = (new(), new());
        gated_backward(act, &x, &up, &dy, &mut dgate, &mut dup);
        [dgate, dup].concat()
    });
    close(&grads[..n], &list(&|i| (dy[i] * up[i]).to_f64() * slope(i)), slope_tol);
    close(&grads[n..], &list(&|i| dy[i].to_f64() * value(i)), tol);
    let inplace = any_threads(|| {
        let (mut gate, mut up, mut output) = (x.clone(), up.clone(), dy.clone());
        gated_backward_inplace(act, &mut gate, &mut up, &mut output);
        [gate, up, output].concat()
    });
    assert_eq!(inplace[..2 * n], grads);
    close(&inplace[2 * n..], &list(&|i| value(i) * up[i].to_f64()), tol);
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn odd_lengths(n in 0usize..200, size in 0.5f64..12.0, act in prop::sample::select(ALL.to_vec())) {
        check::<f32>(act, n, size);
        check::<f64>(act, n, size);
    }
}

#[test]
fn on_several_threads() {
    for act in ALL {
        check::<f32>(act, 50_021, 6.0);
        check::<f64>(act, 50_021, 6.0);
    }
}

#[test]
fn swiglu_is_the_gate_with_silu() {
    let (gate, up, dy) = (data::<f32>(77, 1), data::<f32>(77, 2), data::<f32>(77, 3));
    let [mut a, mut b, mut c, mut d] = [[0f32; 77]; 4];
    swiglu(&gate, &up, &mut a);
    gated_forward(Act::Silu, &gate, &up, &mut b);
    assert_eq!(a, b);
    swiglu_backward(&gate, &up, &dy, &mut a, &mut b);
    gated_backward(Act::Silu, &gate, &up, &dy, &mut c, &mut d);
    assert_eq!((a, b), (c, d));
    let (mut gate, mut up, mut dy) = (gate, up, dy);
    swiglu_backward_inplace(&mut gate, &mut up, &mut dy);
    assert_eq!((&gate[..], &up[..]), (&a[..], &b[..]));
}

fn extremes<T: Real>() {
    let far = [1e2, 1e4, 1e10, 3e19, 1e30].map(T::from_f64);
    let x: Vec<T> = far.iter().flat_map(|&x| [x, -x]).collect();
    let mut y = x.clone();
    let mut slope = x.clone();
    for act in ALL {
        act_forward(act, &x, &mut y);
        act_backward(act, &x, &vec![T::ONE; x.len()], &mut slope);
        let bounded = act == Act::Tanh;
        for (i, &x) in x.iter().enumerate() {
            let positive = x > T::ZERO;
            let want = match (bounded, positive) {
                (true, true) => T::ONE,
                (true, false) => -T::ONE,
                (false, true) => x,
                (false, false) => T::ZERO,
            };
            let off = (y[i] - want).abs();
            assert!(off <= T::from_f64(1e-30), "{act:?}({x}) = {}", y[i]);
            let want = if positive && !bounded { 1.0 } else { 0.0 };
            assert!((slope[i].to_f64() - want).abs() < 1e-30, "{act:?}′({x}) = {}", slope[i]);
        }
    }
}

#[test]
fn far_from_zero_nothing_overflows() {
    extremes::<f32>();
    extremes::<f64>();
}

#[test]
fn nan_stays() {
    for act in ALL {
        let mut y = [0f32];
        act_forward(act, &[f32::NAN], &mut y);
        assert!(y[0].is_nan(), "{act:?}");
    }
}

#[test]
fn single_precision_is_as_good_as_it_gets() {
    // relative to the value itself where it does not cancel
    let x: Vec<f32> = (0..4000).map(|i| i as f32 * 2e-3).collect();
    for act in ALL {
        let mut y = vec![0f32; x.len()];
        act_forward(act, &x, &mut y);
        for (y, x) in y.iter().zip(to_f64(&x)) {
            let want = naive(act, x);
            assert!((f64::from(*y) - want).abs() <= 5e-7 * want, "{act:?}({x}) = {y} instead of {want}");
        }
    }
}
