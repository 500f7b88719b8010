//! Helpers of the kernel tests.

use loram_nn::kernels::Real;
use proptest::prelude::ProptestConfig;

/// So many cases, and no files of failed ones beside the tests.
pub fn cases(n: u32) -> ProptestConfig {
    ProptestConfig { cases: n, failure_persistence: None, ..ProptestConfig::default() }
}

/// Numbers in −1..1 that `f32` holds exactly, so that both types and the reference start from the same.
pub fn data<T: Real>(n: usize, seed: u64) -> Vec<T> {
    // splitmix64
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^= z >> 31;
            T::from_f64((z >> 44) as f64 / f64::from(1 << 19) - 1.0)
        })
        .collect()
}

/// Whole numbers in −3..=3, whose products add up without rounding.
pub fn whole<T: Real>(n: usize, seed: u64) -> Vec<T> {
    data::<f64>(n, seed).into_iter().map(|x| T::from_f64((x * 3.5).round().clamp(-3.0, 3.0))).collect()
}

pub fn to_f64<T: Real>(x: &[T]) -> Vec<f64> {
    x.iter().map(|x| x.to_f64()).collect()
}

/// Tolerance for rounding in each type, for sums of some hundred terms.
pub fn tolerance<T: Real>() -> f64 {
    if T::NAME == "f32" { 2e-5 } else { 1e-12 }
}

/// Every element is right to `tol` of the largest one.
#[track_caller]
pub fn close<T: Real>(got: &[T], want: &[f64], tol: f64) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(1e-3f64, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let off = (g.to_f64() - w).abs();
        assert!(off <= tol * size, "element {i} of {}: {g} instead of {w}", want.len());
    }
}

/// Returns the result of `f` on one thread, after checking that two and three threads give the same bits.
#[track_caller]
pub fn any_threads<T: Real>(f: impl Fn() -> Vec<T> + Sync) -> Vec<T> {
    let on = |n| rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap().install(&f);
    let one = on(1);
    for n in [2, 3] {
        let many = on(n);
        assert_eq!(many.len(), one.len());
        let differs = one.iter().zip(&many).position(|(a, b)| bytemuck::bytes_of(a) != bytemuck::bytes_of(b));
        assert_eq!(differs, None, "first element that differs on {n} threads");
    }
    one
}

pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Slope of `f` at `x` in direction `u`, by central differences of fourth order.
pub fn slope(x: &[f64], u: &[f64], f: &dyn Fn(&[f64]) -> f64) -> f64 {
    let h = 1e-4;
    let at = |s: f64| f(&x.iter().zip(u).map(|(x, u)| x + s * h * u).collect::<Vec<_>>());
    (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * h)
}

/// Checks `gradient` of `f` at `x`, element by element.
#[track_caller]
pub fn is_gradient(gradient: &[f64], x: &[f64], f: &dyn Fn(&[f64]) -> f64) {
    let want: Vec<f64> = (0..x.len())
        .map(|i| {
            let mut u = vec![0.0; x.len()];
            u[i] = 1.0;
            slope(x, &u, f)
        })
        .collect();
    close(gradient, &want, 1e-7);
}

/// Checks `gradient` of `f` at `x` along two random directions: a wrong element shows in any of them.
#[track_caller]
pub fn is_gradient_along(gradient: &[f64], x: &[f64], f: &dyn Fn(&[f64]) -> f64) {
    for seed in [71, 72] {
        let u = data(x.len(), seed);
        let (got, want) = (dot(gradient, &u), slope(x, &u, f));
        let size = dot(gradient, gradient).sqrt() * dot(&u, &u).sqrt();
        assert!((got - want).abs() <= 1e-8 * size + 1e-9, "slope {got} instead of {want}");
    }
}
