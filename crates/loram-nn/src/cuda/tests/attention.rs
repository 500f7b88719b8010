use super::{GPU, close, on, random};
use crate::kernels::attention::{AttnDropout, AttnShape};
use crate::ops::{self, Sequences};
use crate::tensor::Tensor;

/// Heads, key heads and their size.
const HEADS: [(usize, usize, usize); 8] =
    [(1, 1, 1), (3, 1, 8), (4, 2, 16), (2, 2, 24), (2, 1, 64), (2, 1, 80), (1, 1, 136), (1, 1, 256)];

fn shapes((heads, kv_heads, head_dim): (usize, usize, usize)) -> Vec<AttnShape> {
    let plain = AttnShape {
        heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        cap: None,
        causal: true,
        window: None,
        dropout: None,
    };
    let dropout = Some(AttnDropout { p: 0.3, seed: 77 });
    vec![
        plain,
        AttnShape { causal: false, ..plain },
        AttnShape { window: Some(1), ..plain },
        AttnShape { window: Some(35), ..plain },
        AttnShape { window: Some(9), causal: false, ..plain },
        AttnShape { cap: Some(1.5), ..plain },
        AttnShape { cap: Some(0.7), window: Some(35), dropout, ..plain },
        AttnShape { dropout, ..plain },
        AttnShape { dropout, causal: false, ..plain },
    ]
}

#[test]
fn forward_and_backward() {
    for lengths in [vec![1], vec![0, 5, 1], vec![32], vec![64], vec![150], vec![37, 0, 3, 70]] {
        let rows: usize = lengths.iter().sum();
        let positions: Vec<u32> = lengths.iter().flat_map(|&n| 0..n as u32).collect();
        for heads in HEADS {
            for shape in shapes(heads) {
                let (qw, kw) = (shape.q_width(), shape.kv_width());
                let [q, k, v, g] = [(qw, 1), (kw, 2), (kw, 3), (qw, 4)].map(|(w, seed)| random(rows, w, seed));
                let run = |[q, k, v, g]: [&Tensor; 4]| {
                    let sequences = Sequences::new(&lengths, &positions);
                    let (o, lse) = ops::attention(None, [q, k, v], &sequences, &shape);
                    let [dq, dk, dv] = ops::attention_backward(None, [q, k, v], (&o, &lse), g, &sequences, &shape);
                    [o, lse, dq, dk, dv]
                };
                let want = run([&q, &k, &v, &g]);
                for compute in GPU {
                    let [q, k, v, g] = [&q, &k, &v, &g].map(|t| on(compute, t));
                    let got = run([&q, &k, &v, &g]);
                    for ((name, got), want) in ["o", "lse", "dq", "dk", "dv"].iter().zip(&got).zip(&want) {
                        close(&format!("{name} of {lengths:?} with {shape:?}"), compute, got, want);
                    }
                }
            }
        }
    }
}

#[test]
fn with_a_cache() {
    for (queries, keys) in [(1, 1), (1, 7), (3, 3), (2, 130), (1, 300)] {
        for heads in HEADS {
            for shape in shapes(heads).into_iter().filter(|s| s.dropout.is_none() && s.causal) {
                let (k, v) = (random(keys, shape.kv_width(), 2), random(keys, shape.kv_width(), 3));
                // alone, and beside a sequence whose cache holds the queries alone
                let other = [random(queries, shape.kv_width(), 4), random(queries, shape.kv_width(), 5)];
                for several in [false, true] {
                    let name = format!("{queries} among {keys} with {shape:?}, several: {several}");
                    let q = random(queries * (1 + usize::from(several)), shape.q_width(), 1);
                    let caches = [[k.copy(), v.copy()], [other[0].copy(), other[1].copy()]];
                    let caches = &caches.each_ref()[..1 + usize::from(several)];
                    let lengths = [queries, queries];
                    let (want, want_lse) = ops::attention_cached(&q, caches, &lengths, &shape, true);
                    for compute in GPU {
                        let q = on(compute, &q);
                        let caches: Vec<[Tensor; 2]> =
                            caches.iter().map(|c| c.each_ref().map(|t| on(compute, t))).collect();
                        let caches: Vec<&[Tensor; 2]> = caches.iter().collect();
                        let (got, lse) = ops::attention_cached(&q, &caches, &lengths, &shape, true);
                        close(&name, compute, &got, &want);
                        close(&name, compute, lse.as_ref().unwrap(), want_lse.as_ref().unwrap());
                    }
                }
            }
        }
    }
}
