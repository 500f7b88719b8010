//! Every kernel on a shape of training: 1024 tokens, 512 wide, 8 heads of 64, ffn 1376, rank 16, in f32.
//!
//!     cargo bench --workspace --bench kernels [-- FILTER]
//!
//! Products report FLOP per second as elements per second, all others bytes that must be read and written.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use loram_core::StoredWeight;
use loram_io::config::{RopeConfig, RopeScaling};
use loram_nn::kernels::activation::{Act, act_backward, act_forward, swiglu, swiglu_backward_inplace};
use loram_nn::kernels::attention::{AttnDropout, AttnShape, attention, attention_backward, attention_cached};
use loram_nn::kernels::cross_entropy::softmax_cross_entropy;
use loram_nn::kernels::elementwise::{add_assign, bias_grad, dropout_forward, sum_squares};
use loram_nn::kernels::embedding::{gather_stored, scatter_add};
use loram_nn::kernels::gemm::{Term, View, ViewMut, gemm, gemm_sum};
use loram_nn::kernels::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use loram_nn::kernels::optim::{AdamW, adamw_step};
use loram_nn::kernels::rope::{RopeParams, RopeTable, rope_forward};
use std::hint::black_box;

const T: usize = 1024;
const WIDTH: usize = 512;
const FFN: usize = 1376;
const R: usize = 16;
const VOCAB: usize = 8192;

/// Numbers in −1..1.
fn data(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

fn zeros(n: usize) -> Vec<f32> {
    vec![0.0; n]
}

/// Bytes of so many numbers.
fn bytes(numbers: usize) -> Throughput {
    Throughput::Bytes(4 * numbers as u64)
}

fn flops(n: usize) -> Throughput {
    Throughput::Elements(n as u64)
}

fn products(c: &mut Criterion) {
    let mut g = c.benchmark_group("gemm");
    let (x, w, a, b) = (data(T * WIDTH), data(FFN * WIDTH), data(R * WIDTH), data(FFN * R));
    let (mut y, mut h, mut dx) = (zeros(T * FFN), zeros(T * R), zeros(T * WIDTH));
    g.throughput(flops(2 * T * WIDTH * FFN));
    g.bench_function("x·Wᵀ", |bench| {
        bench.iter(|| {
            let (x, w) = (View::new(&x, T, WIDTH), View::new(&w, FFN, WIDTH).t());
            gemm(ViewMut::new(black_box(&mut y), T, FFN), false, 1.0, x, w);
        });
    });
    g.bench_function("dy·W", |bench| {
        bench.iter(|| {
            let (dy, w) = (View::new(&y, T, FFN), View::new(&w, FFN, WIDTH));
            gemm(ViewMut::new(black_box(&mut dx), T, WIDTH), false, 1.0, dy, w);
        });
    });
    g.throughput(flops(2 * T * (WIDTH * FFN + R * (WIDTH + FFN))));
    g.bench_function("x·Wᵀ + s·(x·Aᵀ)·Bᵀ", |bench| {
        bench.iter(|| {
            let x = View::new(&x, T, WIDTH);
            gemm(ViewMut::new(&mut h, T, R), false, 1.0, x, View::new(&a, R, WIDTH).t());
            let terms = [
                Term { alpha: 1.0, a: x, b: View::new(&w, FFN, WIDTH).t() },
                Term { alpha: 2.0, a: View::new(&h, T, R), b: View::new(&b, FFN, R).t() },
            ];
            gemm_sum(ViewMut::new(black_box(&mut y), T, FFN), false, &terms);
        });
    });
    let mut da = zeros(R * WIDTH);
    g.throughput(flops(2 * T * R * WIDTH));
    g.bench_function("dA += dhᵀ·x", |bench| {
        bench.iter(|| {
            let (dh, x) = (View::new(&h, T, R).t(), View::new(&x, T, WIDTH));
            gemm(ViewMut::new(black_box(&mut da), R, WIDTH), true, 1.0, dh, x);
        });
    });
    g.finish();
}

fn attentions(c: &mut Criterion) {
    let mut g = c.benchmark_group("attention");
    let plain = AttnShape {
        heads: 8,
        kv_heads: 8,
        head_dim: 64,
        scale: 0.125,
        cap: None,
        causal: true,
        window: None,
        dropout: None,
    };
    let dropout = Some(AttnDropout { p: 0.1, seed: 1 });
    let cases = [
        ("causal 4×256", vec![256; 4], plain),
        ("causal 1×1024", vec![1024], plain),
        ("both ways 32×32", vec![32; 32], AttnShape { causal: false, ..plain }),
        ("both ways 32×32, dropout", vec![32; 32], AttnShape { causal: false, dropout, ..plain }),
    ];
    let (q, k, v, d_o) = (data(T * WIDTH), data(T * WIDTH), data(T * WIDTH), data(T * WIDTH));
    let (mut o, mut lse) = (zeros(T * WIDTH), zeros(T * 8));
    let (mut dq, mut dk, mut dv) = (zeros(T * WIDTH), zeros(T * WIDTH), zeros(T * WIDTH));
    for (name, lengths, s) in &cases {
        let pairs: usize = lengths.iter().map(|n| if s.causal { n * n / 2 } else { n * n }).sum();
        g.throughput(flops(2 * 2 * pairs * WIDTH));
        g.bench_function(format!("forward, {name}"), |bench| {
            bench.iter(|| attention(&q, &k, &v, black_box(&mut o), &mut lse, lengths, s));
        });
        g.throughput(flops(5 * 2 * pairs * WIDTH));
        g.bench_function(format!("backward, {name}"), |bench| {
            bench.iter(|| {
                attention_backward(&q, &k, &v, &o, &lse, &d_o, black_box(&mut dq), &mut dk, &mut dv, lengths, s);
            });
        });
    }
    g.throughput(bytes(2 * T * WIDTH));
    g.bench_function("one token against 1024", |bench| {
        bench.iter(|| attention_cached(&q[..WIDTH], vec![((&k, &v), 1)], black_box(&mut o[..WIDTH]), None, &plain));
    });
    g.finish();
}

fn rows(c: &mut Criterion) {
    let mut g = c.benchmark_group("rows");
    let (x, dy, w, b) = (data(T * WIDTH), data(T * WIDTH), data(WIDTH), data(WIDTH));
    let (mut y, mut mean, mut rstd) = (zeros(T * WIDTH), zeros(T), zeros(T));
    g.throughput(bytes(2 * T * WIDTH));
    g.bench_function("rms_norm", |bench| {
        bench.iter(|| rms_norm(&x, &w, 1e-6, black_box(&mut y), &mut rstd, T, WIDTH));
    });
    g.bench_function("layer_norm", |bench| {
        bench.iter(|| layer_norm(&x, &w, &b, 1e-6, black_box(&mut y), &mut mean, &mut rstd, T, WIDTH));
    });
    g.throughput(bytes(3 * T * WIDTH));
    g.bench_function("rms_norm_backward", |bench| {
        bench.iter(|| rms_norm_backward(&x, &w, &rstd, &dy, black_box(&mut y), false, None, T, WIDTH));
    });
    g.bench_function("layer_norm_backward", |bench| {
        bench.iter(|| layer_norm_backward(&x, &w, &mean, &rstd, &dy, black_box(&mut y), false, None, T, WIDTH));
    });
    let rope = RopeParams {
        config: RopeConfig {
            theta: 1e4,
            scaling: RopeScaling::None,
            partial_rotary_factor: 1.0,
            interleaved: false,
            query_growth: None,
        },
        head_dim: 64,
        queries: true,
    };
    let table = RopeTable::<f32>::new(&rope, T);
    let positions: Vec<u32> = (0..T as u32).collect();
    g.throughput(bytes(2 * T * WIDTH));
    g.bench_function("rope", |bench| {
        bench.iter(|| rope_forward(black_box(&mut y), &positions, 8, 64, &table));
    });
    let ids: Vec<u32> = (0..T as u32).map(|i| i * 7919 % VOCAB as u32).collect();
    let words = data(VOCAB * WIDTH);
    let table = StoredWeight::of(&words, VOCAB, WIDTH);
    let mut dwords = zeros(VOCAB * WIDTH);
    g.bench_function("gather", |bench| {
        bench.iter(|| gather_stored(table, &ids, black_box(&mut y), false));
    });
    g.bench_function("scatter_add", |bench| {
        bench.iter(|| scatter_add(&dy, &ids, black_box(&mut dwords), WIDTH));
    });
    let mut db = zeros(WIDTH);
    g.throughput(bytes(T * WIDTH));
    g.bench_function("bias_grad", |bench| bench.iter(|| bias_grad(&dy, black_box(&mut db), T, WIDTH)));
    let labels: Vec<i64> = ids.iter().map(|&i| i64::from(i)).collect();
    let mut logits = data(T * VOCAB);
    g.throughput(bytes(2 * T * VOCAB));
    g.bench_function("softmax_cross_entropy with gradient", |bench| {
        bench.iter(|| softmax_cross_entropy(black_box(&mut logits), &labels, VOCAB, 1e-3, true));
    });
    g.finish();
}

fn elements(c: &mut Criterion) {
    let mut g = c.benchmark_group("elements");
    let n = T * FFN;
    let (gate, up, dy) = (data(n), data(n), data(n));
    let mut y = zeros(n);
    g.throughput(bytes(3 * n));
    g.bench_function("swiglu", |bench| bench.iter(|| swiglu(&gate, &up, black_box(&mut y))));
    g.throughput(bytes(6 * n));
    // in place, so that each run needs fresh values: repeated, they would shrink to denormal numbers, which are slow
    g.bench_function("swiglu_backward", |bench| {
        let fresh = || [gate.clone(), up.clone(), dy.clone()];
        let run = |[gate, up, dy]: &mut [Vec<f32>; 3]| swiglu_backward_inplace(gate, up, dy);
        bench.iter_batched_ref(fresh, run, BatchSize::LargeInput);
    });
    for act in [Act::Gelu, Act::Relu] {
        g.throughput(bytes(2 * n));
        g.bench_function(format!("{act:?}"), |bench| bench.iter(|| act_forward(act, &gate, black_box(&mut y))));
        g.throughput(bytes(3 * n));
        g.bench_function(format!("{act:?} backward"), |bench| {
            bench.iter(|| act_backward(act, &gate, &dy, black_box(&mut y)));
        });
    }
    g.throughput(bytes(3 * n));
    g.bench_function("add_assign", |bench| bench.iter(|| add_assign(black_box(&mut y), &up)));
    g.throughput(bytes(2 * n));
    g.bench_function("dropout", |bench| bench.iter(|| dropout_forward(&up, black_box(&mut y), 0.1, 7, 0)));
    g.throughput(bytes(n));
    g.bench_function("sum_squares", |bench| bench.iter(|| black_box(sum_squares(&up))));
    let how = AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.01 };
    let (mut m, mut v) = (zeros(n), zeros(n));
    g.throughput(bytes(7 * n));
    g.bench_function("adamw_step", |bench| {
        bench.iter(|| adamw_step(black_box(&mut y), &dy, &mut m, &mut v, &how, 1000));
    });
    g.finish();
}

criterion_group!(kernels, products, attentions, rows, elements);
criterion_main!(kernels);
