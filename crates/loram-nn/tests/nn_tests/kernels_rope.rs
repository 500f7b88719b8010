//! Rotations against complex numbers, and frequencies against their formulas.

use super::common::{any_threads, cases, close, data, dot, is_gradient, to_f64};
use loram_io::config::{RopeConfig, RopeScaling};
use loram_nn::kernels::Real;
use loram_nn::kernels::rope::{RopeParams, RopeTable, rope_backward, rope_forward};
use proptest::prelude::*;

fn params(scaling: RopeScaling, head_dim: usize, share: f64) -> RopeParams {
    let config =
        RopeConfig { theta: 10_000.0, scaling, partial_rotary_factor: share, interleaved: false, query_growth: None };
    RopeParams { config, head_dim, queries: true }
}

/// Pairs (i, i + half), or (2i, 2i + 1), of every head turned by position · θ^(−2i/dim), as complex numbers.
fn naive_rope(x: &[f64], positions: &[u32], heads: usize, p: &RopeParams, back: bool) -> Vec<f64> {
    let (d, half) = (p.head_dim, p.rot_dim() / 2);
    let mut y = x.to_vec();
    for (t, &position) in positions.iter().enumerate() {
        for head in 0..heads {
            for i in 0..half {
                let angle = f64::from(position) * p.config.theta.powf(-(i as f64) / half as f64);
                let (sin, cos) = if back { -angle } else { angle }.sin_cos();
                let start = (t * heads + head) * d;
                let (a, b) = match p.config.interleaved {
                    true => (start + 2 * i, start + 2 * i + 1),
                    false => (start + i, start + half + i),
                };
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
        interleaved in any::<bool>(),
    ) {
        // a share of 1/4 of so many elements is even
        let mut p = params(RopeScaling::None, 8 * half, share);
        p.config.interleaved = interleaved;
        check_rope::<f32>(&positions, heads, &p);
        check_rope::<f64>(&positions, heads, &p);
    }
}

#[test]
fn rotations_on_several_threads() {
    let positions: Vec<u32> = (0..257).map(|i| i % 47).collect();
    check_rope::<f32>(&positions, 5, &params(RopeScaling::None, 128, 0.5));
    check_rope::<f64>(&positions, 5, &params(RopeScaling::None, 128, 1.0));
}

#[test]
fn the_backward_rotation_is_the_gradient() {
    let yarn = RopeScaling::Yarn {
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
    let mut pairs = params(yarn.clone(), 8, 0.5);
    pairs.config.interleaved = true;
    for p in [params(RopeScaling::None, 6, 1.0), params(yarn.clone(), 6, 1.0), params(yarn, 8, 0.5), pairs] {
        let table = RopeTable::<f64>::new(&p, 20);
        let (x, mut g) = (data::<f64>(6 * p.head_dim, 1), data::<f64>(6 * p.head_dim, 2));
        let (dy, positions) = (g.clone(), [3, 0, 19]);
        rope_backward(&mut g, &positions, 2, p.head_dim, &table).unwrap();
        is_gradient(&g, &x, &|x| {
            let mut y = x.to_vec();
            rope_forward(&mut y, &positions, 2, p.head_dim, &table).unwrap();
            dot(&y, &dy)
        });
    }
}

#[test]
fn scaled_frequencies() {
    let plain = params(RopeScaling::None, 64, 1.0).frequencies(10).0;
    let at = |kind, len| params(kind, 64, 1.0).frequencies(len).0;
    close(
        &at(RopeScaling::Linear { factor: 4.0 }, 10),
        &plain.iter().map(|&f| f64::from(f) / 4.0).collect::<Vec<_>>(),
        1e-7,
    );

    let dynamic = RopeScaling::Dynamic { factor: 2.0, original_max: 32 };
    assert_eq!(at(dynamic.clone(), 32), plain);
    // at twice the length the base is θ·(2·2 − 1)^(d/(d−2))
    let base = 1e4 * 3f64.powf(64.0 / 62.0);
    let want: Vec<f64> = (0..32).map(|i| base.powf(f64::from(-i) / 32.0)).collect();
    close(&at(dynamic.clone(), 64), &want, 1e-6);
    let table = RopeTable::<f64>::new(&params(dynamic.clone(), 64, 1.0), 64);
    assert!(table.serves(64) && !table.serves(63) && !table.serves(20) && !table.serves(65));
    let short = RopeTable::<f64>::new(&params(dynamic, 64, 1.0), 20);
    assert!(short.serves(20) && short.serves(3) && !short.serves(21));

    let llama = RopeScaling::Llama3 { factor: 8.0, low_freq_factor: 1.0, high_freq_factor: 4.0, original_max: 256 };
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
fn yarn_divides_the_slow_frequencies_only() {
    let yarn = |mscale, mscale_all_dim, attention_factor| RopeScaling::Yarn {
        factor: 4.0,
        original_max: 256,
        beta_fast: 32.0,
        beta_slow: 1.0,
        mscale,
        mscale_all_dim,
        attention_factor,
        truncate: true,
    };
    let plain = params(RopeScaling::None, 64, 1.0).frequencies(10).0;
    let (f, factor) = params(yarn(None, None, None), 64, 1.0).frequencies(10);
    let unit = 0.1 * 4f64.ln();
    assert_eq!(factor, unit + 1.0);
    for (i, (&f, &was)) in f.iter().zip(&plain).enumerate() {
        // 256 positions are 32 turns at dimension 0.84 and one turn at 12.9, rounded down and up
        let kept = 1.0 - (i as f64 / 13.0).min(1.0);
        close(&[f / was], &[kept + (1.0 - kept) / 4.0], 1e-6);
    }
    assert_eq!(params(yarn(None, None, Some(0.5)), 64, 1.0).frequencies(10).1, 0.5);
    let ratio = params(yarn(Some(2.0), Some(0.5), None), 64, 1.0).frequencies(10).1;
    close(&[ratio], &[(2.0 * unit + 1.0) / (0.5 * unit + 1.0)], 1e-12);
}

#[test]
fn long_sequences_have_factors_of_their_own() {
    let (short, long) = (vec![1.0, 1.5, 2.0, 4.0], vec![1.0, 3.0, 8.0, 64.0]);
    let kind = RopeScaling::Long { short: short.clone(), long: long.clone(), original_max: 32, attention_factor: 1.25 };
    let plain = params(RopeScaling::None, 8, 1.0).frequencies(10).0;
    for (len, factors) in [(1, &short), (32, &short), (33, &long)] {
        let (found, factor) = params(kind.clone(), 8, 1.0).frequencies(len);
        assert_eq!(factor, 1.25);
        let want: Vec<f64> = plain.iter().zip(factors).map(|(&p, f)| f64::from(p) / f).collect();
        close(&found, &want, 1e-6);
    }
    let table = RopeTable::<f64>::new(&params(kind.clone(), 8, 1.0), 32);
    assert!(table.serves(32) && table.serves(1) && !table.serves(33));
    let table = RopeTable::<f64>::new(&params(kind, 8, 1.0), 128);
    assert!(table.serves(33) && !table.serves(32) && !table.serves(129));
}

#[test]
fn positions_beyond_the_table_are_errors() {
    let p = params(RopeScaling::None, 4, 1.0);
    let table = RopeTable::<f32>::new(&p, 5);
    assert!(table.serves(5) && table.serves(0) && !table.serves(6));
    let x = data::<f32>(8, 1);
    let mut y = x.clone();
    let e = rope_forward(&mut y, &[4, 5], 1, 4, &table).unwrap_err();
    assert_eq!((e.index, e.value, e.limit, &y), (1, 5, 5, &x));
    assert_eq!(rope_backward(&mut y, &[9, 5], 1, 4, &table).unwrap_err().index, 0);
    assert_eq!(y, x);
}
