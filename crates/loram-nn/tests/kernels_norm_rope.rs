//! Norms and rotations against their formulas, and their gradients against differences.

mod common;

use common::{any_threads, cases, close, data, dot, is_gradient, is_gradient_along, to_f64, tolerance};
use loram_nn::kernels::Real;
use loram_nn::kernels::norm::*;
use loram_nn::kernels::rope::{RopeKind, RopeParams, RopeTable, rope_backward, rope_forward};
use proptest::prelude::*;

const EPS: f64 = 1e-5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Norm {
    Rms,
    Layer,
}

impl Norm {
    /// The normalised rows, and y of weights and biases.
    fn naive(self, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let cols = w.len();
        let row = |x: &[f64]| -> Vec<f64> {
            let n = cols as f64;
            let mean = if self == Norm::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let of = |((x, w), b): ((&f64, &f64), &f64)| (x - mean) / (var + EPS).sqrt() * w + b;
            x.iter().zip(w).zip(b).map(of).collect()
        };
        x.chunks_exact(cols).flat_map(row).collect()
    }

    /// y, then the mean (layer norm) and 1/√(…) of each row.
    fn forward<T: Real>(self, x: &[T], w: &[T], b: &[T]) -> Vec<T> {
        let (cols, rows) = (w.len(), x.len() / w.len());
        let mut out = vec![T::ZERO; x.len() + 2 * rows];
        let (y, stats) = out.split_at_mut(x.len());
        let (mean, rstd) = stats.split_at_mut(rows);
        match self {
            Norm::Rms => rms_norm(x, w, EPS, y, rstd, rows, cols),
            Norm::Layer => layer_norm(x, w, b, EPS, y, mean, rstd, rows, cols),
        }
        out
    }

    /// dx, dw and (layer norm) db, each added to `start`.
    fn backward<T: Real>(self, x: &[T], w: &[T], stats: &[T], dy: &[T], start: T) -> Vec<T> {
        let (cols, rows) = (w.len(), x.len() / w.len());
        let (mean, rstd) = stats.split_at(rows);
        let mut out = vec![start; x.len() + 2 * cols];
        let (dx, weights) = out.split_at_mut(x.len());
        let (dw, db) = weights.split_at_mut(cols);
        let add = start != T::ZERO;
        match self {
            Norm::Rms => rms_norm_backward(x, w, rstd, dy, dx, add, Some(dw), rows, cols),
            Norm::Layer => layer_norm_backward(x, w, mean, rstd, dy, dx, add, Some((dw, db)), rows, cols),
        }
        out
    }

    fn check<T: Real>(self, rows: usize, cols: usize) {
        let (x, dy) = (data::<T>(rows * cols, 1), data::<T>(rows * cols, 4));
        let (w, b) = (data::<T>(cols, 2), if self == Norm::Rms { vec![T::ZERO; cols] } else { data(cols, 3) });
        let out = any_threads(|| self.forward(&x, &w, &b));
        let (y, stats) = out.split_at(x.len());
        close(y, &self.naive(&to_f64(&x), &to_f64(&w), &to_f64(&b)), tolerance::<T>());

        let grads = any_threads(|| self.backward(&x, &w, stats, &dy, T::ZERO));
        let added = any_threads(|| self.backward(&x, &w, stats, &dy, T::ONE));
        let used = if self == Norm::Rms { x.len() + cols } else { grads.len() };
        let want: Vec<f64> = grads[..used].iter().map(|g| g.to_f64() + 1.0).collect();
        close(&added[..used], &want, tolerance::<T>());

        // gradients in both types against differences of the formula in f64
        let (x, w, b, dy) = (to_f64(&x), to_f64(&w), to_f64(&b), to_f64(&dy));
        let grads = to_f64(&grads);
        let parts = [(&x, &grads[..x.len()]), (&w, &grads[x.len()..x.len() + cols]), (&b, &grads[x.len() + cols..])];
        for (i, (at, grad)) in parts.into_iter().enumerate().take(if self == Norm::Rms { 2 } else { 3 }) {
            let loss = |v: &[f64]| {
                let [x, w, b] = std::array::from_fn(|j| if i == j { v } else { [&x, &w, &b][j] });
                dot(&self.naive(x, w, b), &dy)
            };
            match T::NAME {
                "f64" if at.len() < 100 => is_gradient(grad, at, loss),
                "f64" => is_gradient_along(grad, at, loss),
                _ => {
                    let exact = self.backward(&x, &w, &self.forward(&x, &w, &b)[x.len()..], &dy, 0.0);
                    let from = [0, x.len(), x.len() + cols][i];
                    close(grad, &exact[from..from + at.len()], 1e-4);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    // a single column is 0 in layer norm but for its bias, with a derivative of 0
    #[test]
    fn norms_of_odd_shapes(rows in 0usize..8, cols in 1usize..70, norm in prop::sample::select(vec![Norm::Rms, Norm::Layer])) {
        norm.check::<f32>(rows, cols);
        norm.check::<f64>(rows, cols);
    }

    #[test]
    fn a_sum_before_a_norm(rows in 0usize..8, cols in 1usize..70) {
        added::<f32>(rows, cols);
        added::<f64>(rows, cols);
    }
}

#[test]
fn norms_on_several_threads() {
    for (rows, cols) in [(131, 641), (2, 65_537), (1100, 67)] {
        for norm in [Norm::Rms, Norm::Layer] {
            norm.check::<f32>(rows, cols);
            norm.check::<f64>(rows, cols);
        }
        added::<f32>(rows, cols);
    }
}

/// `add_rms_norm` is a sum and a norm, to the bit.
fn added<T: Real>(rows: usize, cols: usize) {
    let (x, residual, w) = (data::<T>(rows * cols, 1), data::<T>(rows * cols, 2), data::<T>(cols, 3));
    let sum: Vec<T> = x.iter().zip(&residual).map(|(&a, &b)| a + b).collect();
    let got = any_threads(|| {
        let (mut x, mut y, mut rstd) = (x.clone(), vec![T::ZERO; x.len()], vec![T::ZERO; rows]);
        add_rms_norm(&mut x, &residual, &w, EPS, &mut y, &mut rstd, rows, cols);
        [x, y, rstd].concat()
    });
    let plain = Norm::Rms.forward(&sum, &w, &[]);
    // `forward` leaves room for means
    assert_eq!(got, [&sum[..], &plain[..x.len()], &plain[x.len() + rows..]].concat());
}

#[test]
fn a_large_mean_does_not_cancel() {
    let x: Vec<f32> = data::<f32>(128, 1).iter().map(|x| 4096.0 + x * 8.0).collect();
    let (w, b, dy) = (data::<f32>(64, 2), data::<f32>(64, 3), data::<f32>(128, 4));
    let out = Norm::Layer.forward(&x, &w, &b);
    close(&out[..128], &Norm::Layer.naive(&to_f64(&x), &to_f64(&w), &to_f64(&b)), 2e-4);
    let (xd, wd) = (to_f64(&x), to_f64(&w));
    let exact = Norm::Layer.backward(&xd, &wd, &Norm::Layer.forward(&xd, &wd, &to_f64(&b))[128..], &to_f64(&dy), 0.0);
    close(&Norm::Layer.backward(&x, &w, &out[128..], &dy, 0.0), &exact, 2e-4);
}

fn params(kind: RopeKind, head_dim: usize, share: f64) -> RopeParams {
    RopeParams { kind, theta: 10_000.0, head_dim, partial_rotary_factor: share }
}

/// Pairs (i, i + half) of every head turned by position · θ^(−2i/dim), as complex numbers.
fn naive_rope(x: &[f64], positions: &[u32], heads: usize, p: &RopeParams, back: bool) -> Vec<f64> {
    let (d, half) = (p.head_dim, p.rot_dim() / 2);
    let mut y = x.to_vec();
    for (t, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for i in 0..half {
                let angle = f64::from(position) * p.theta.powf(-(i as f64) / half as f64);
                let (sin, cos) = if back { -angle } else { angle }.sin_cos();
                let (a, b) = ((t * heads + head) * d + i, (t * heads + head) * d + half + i);
                (y[a], y[b]) = (x[a] * cos - x[b] * sin, x[b] * cos + x[a] * sin);
            }
        }
    }
    y
}

fn check_rope<T: Real>(positions: &[u32], heads: usize, p: &RopeParams) {
    let table = RopeTable::<T>::new(p, 50);
    let x = data::<T>(positions.len() * heads * p.head_dim, 1);
    let forward = any_threads(|| {
        let mut y = x.clone();
        rope_forward(&mut y, positions, heads, p.head_dim, &table).unwrap();
        y
    });
    let backward = any_threads(|| {
        let mut y = x.clone();
        rope_backward(&mut y, positions, heads, p.head_dim, &table).unwrap();
        y
    });
    // angles are f32, as in transformers
    close(&forward, &naive_rope(&to_f64(&x), positions, heads, p, false), 1e-5);
    close(&backward, &naive_rope(&to_f64(&x), positions, heads, p, true), 1e-5);
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn rotations_of_odd_shapes(
        positions in prop::collection::vec(0u32..50, 0..9),
        heads in 0usize..4,
        half in 0usize..20,
        share in prop::sample::select(vec![1.0, 0.5, 0.25]),
    ) {
        // a share of 1/4 of so many elements is even
        let p = params(RopeKind::Default, 8 * half, share);
        check_rope::<f32>(&positions, heads, &p);
        check_rope::<f64>(&positions, heads, &p);
    }
}

#[test]
fn rotations_on_several_threads() {
    let positions: Vec<u32> = (0..257).map(|i| i % 47).collect();
    check_rope::<f32>(&positions, 5, &params(RopeKind::Default, 128, 0.5));
    check_rope::<f64>(&positions, 5, &params(RopeKind::Default, 128, 1.0));
}

#[test]
fn the_backward_rotation_is_the_gradient() {
    let yarn = RopeKind::Yarn {
        factor: 4.0,
        original_max: 16,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale: None,
        mscale_all_dim: None,
        attention_factor: None,
        truncate: true,
    };
    // with a factor on cos and sin the inverse would not do
    for p in [params(RopeKind::Default, 6, 1.0), params(yarn, 6, 1.0), params(yarn, 8, 0.5)] {
        let table = RopeTable::<f64>::new(&p, 20);
        let (x, mut g) = (data::<f64>(6 * p.head_dim, 1), data::<f64>(6 * p.head_dim, 2));
        let (dy, positions) = (g.clone(), [3, 0, 19]);
        rope_backward(&mut g, &positions, 2, p.head_dim, &table).unwrap();
        is_gradient(&g, &x, |x| {
            let mut y = x.to_vec();
            rope_forward(&mut y, &positions, 2, p.head_dim, &table).unwrap();
            dot(&y, &dy)
        });
    }
}

#[test]
fn scaled_frequencies() {
    let plain = params(RopeKind::Default, 64, 1.0).frequencies(10).0;
    let at = |kind, len| params(kind, 64, 1.0).frequencies(len).0;
    close(
        &at(RopeKind::Linear { factor: 4.0 }, 10),
        &plain.iter().map(|&f| f64::from(f) / 4.0).collect::<Vec<_>>(),
        1e-7,
    );

    let dynamic = RopeKind::Dynamic { factor: 2.0, max_position: 32 };
    assert_eq!(at(dynamic, 32), plain);
    // at twice the length the base is θ·(2·2 − 1)^(d/(d−2))
    let base = 1e4 * 3f64.powf(64.0 / 62.0);
    let want: Vec<f64> = (0..32).map(|i| base.powf(f64::from(-i) / 32.0)).collect();
    close(&at(dynamic, 64), &want, 1e-6);
    let table = RopeTable::<f64>::new(&params(dynamic, 64, 1.0), 64);
    assert!(table.serves(64) && !table.serves(63) && !table.serves(20) && !table.serves(65));
    let short = RopeTable::<f64>::new(&params(dynamic, 64, 1.0), 20);
    assert!(short.serves(20) && short.serves(3) && !short.serves(21));

    let llama = RopeKind::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max: 256 };
    for (&f, &was) in at(llama, 10).iter().zip(&plain) {
        let wavelength = std::f32::consts::TAU / was;
        match wavelength {
            w if w < 64.0 => assert_eq!(f, was),
            w if w > 256.0 => assert_eq!(f, was / 8.0),
            _ => assert!(f < was && f > was / 8.0),
        }
    }
}

#[test]
fn positions_beyond_the_table_are_errors() {
    let p = params(RopeKind::Default, 4, 1.0);
    let table = RopeTable::<f32>::new(&p, 5);
    assert!(table.serves(5) && table.serves(0) && !table.serves(6));
    let x = data::<f32>(8, 1);
    let mut y = x.clone();
    let e = rope_forward(&mut y, &[4, 5], 1, 4, &table).unwrap_err();
    assert_eq!((e.index, e.value, e.limit, &y), (1, 5, 5, &x));
    assert_eq!(rope_backward(&mut y, &[9, 5], 1, 4, &table).unwrap_err().index, 0);
    assert_eq!(y, x);
}
