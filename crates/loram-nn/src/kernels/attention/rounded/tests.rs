use super::super::super::bf16::Kernel;
use super::super::{AttnDropout, AttnShape, attention, attention_backward};
use super::{attention as rounded, attention_backward as rounded_backward};
use half::bf16;

/// Numbers that bf16 holds, so that products alone are rounded.
fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| bf16::from_f32(next()).to_f32()).collect()
}

/// Norm of the difference by the norm of what is expected.
fn apart(found: &[f32], expected: &[f64]) -> f64 {
    let square = |x: f64| x * x;
    let off: f64 = found.iter().zip(expected).map(|(&a, b)| square(f64::from(a) - b)).sum();
    (off / expected.iter().map(|&x| square(x)).sum::<f64>().max(1e-30)).sqrt()
}

fn run(kernel: Kernel, shape: &AttnShape, lengths: &[usize]) -> [Vec<f32>; 5] {
    let t: usize = lengths.iter().sum();
    let (qw, kw) = (t * shape.q_width(), t * shape.kv_width());
    let (q, k, v, g) = (numbers(qw, 1), numbers(kw, 2), numbers(kw, 3), numbers(qw, 4));
    let (mut o, mut lse) = (vec![f32::NAN; qw], vec![f32::NAN; t * shape.heads]);
    rounded(kernel, &q, &k, &v, &mut o, &mut lse, lengths, shape);
    let (mut dq, mut dk, mut dv) = (vec![f32::NAN; qw], vec![f32::NAN; kw], vec![f32::NAN; kw]);
    rounded_backward(kernel, &q, &k, &v, &o, &lse, &g, &mut dq, &mut dk, &mut dv, lengths, shape);
    [o, lse, dq, dk, dv]
}

fn exact(shape: &AttnShape, lengths: &[usize]) -> [Vec<f64>; 5] {
    let t: usize = lengths.iter().sum();
    let (qw, kw) = (t * shape.q_width(), t * shape.kv_width());
    let of = |len, seed| numbers(len, seed).into_iter().map(f64::from).collect::<Vec<_>>();
    let (q, k, v, g) = (of(qw, 1), of(kw, 2), of(kw, 3), of(qw, 4));
    let (mut o, mut lse) = (vec![0.0; qw], vec![0.0; t * shape.heads]);
    attention(&q, &k, &v, &mut o, &mut lse, lengths, shape);
    let (mut dq, mut dk, mut dv) = (vec![0.0; qw], vec![0.0; kw], vec![0.0; kw]);
    attention_backward(&q, &k, &v, &o, &lse, &g, &mut dq, &mut dk, &mut dv, lengths, shape);
    [o, lse, dq, dk, dv]
}

/// Head widths with and without whole panels, lengths around the edges of tiles, grouped heads, and every mask.
#[test]
fn agrees_with_double_precision() {
    for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
        let lengths = [1, 31, 33, 64, 65, 150, 2];
        for (heads, kv_heads, head_dim) in [(3, 1, 64), (2, 2, 80), (4, 2, 20), (1, 1, 128)] {
            for (causal, window) in [(true, None), (true, Some(40)), (false, None), (false, Some(9))] {
                for (cap, dropout) in [(None, None), (Some(2.0), Some(AttnDropout { p: 0.3, seed: 7 }))] {
                    let scale = 1.3 / (head_dim as f64).sqrt();
                    let shape = AttnShape { heads, kv_heads, head_dim, scale, cap, causal, window, dropout };
                    let (found, expected) = (run(kernel, &shape, &lengths), exact(&shape, &lengths));
                    for ((name, found), expected) in ["o", "lse", "dq", "dk", "dv"].iter().zip(&found).zip(&expected) {
                        let off = apart(found, expected);
                        assert!(off < 8e-3, "{kernel:?} {shape:?}: {name} is off by {off:.1e}");
                    }
                }
            }
        }
    }
}

/// Units are cut by the number of threads; sums are not.
#[test]
fn the_same_bits_for_any_number_of_threads() {
    for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
        let shape = AttnShape {
            heads: 6,
            kv_heads: 2,
            head_dim: 48,
            scale: 0.2,
            cap: None,
            causal: true,
            window: None,
            dropout: None,
        };
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| run(kernel, &shape, &[700, 40, 3]))
        };
        let one = on(1);
        // two share whole heads, seven cut them
        assert!(one == on(2) && one == on(7), "{kernel:?}");
    }
}
