//! Attention in f32 and with every kernel for bf16 of this processor, forward and backward, in GFLOP/s of the scores that causal
//! masks leave: two products forward, five backward.
//!
//!     cargo run --release --example attention [-- THREADS [SECONDS]]
//!
//! Packing, masks and softmax are part of it. Figures are those of the fastest of many calls.

mod common;

use common::fastest;
use loram_nn::kernels::attention::{AttnShape, attention, attention_backward, rounded};
use loram_nn::kernels::bf16::Kernel;
use std::hint::black_box;
use std::time::Duration;

/// Heads, KV heads and their width: SmolLM2-135M, Llama-3.2-1B, a 7B Llama, Gemma 3 270M.
const HEADS: [(usize, usize, usize); 4] = [(9, 3, 64), (32, 8, 64), (32, 32, 128), (4, 1, 256)];

/// Sequences and their length.
const LENGTHS: [(usize, usize); 3] = [(8, 200), (2, 1024), (1, 4096)];

fn main() {
    let argument = |i: usize, default: f64| std::env::args().nth(i).map_or(default, |a| a.parse().expect("a number"));
    let (threads, seconds) = (argument(1, 0.0) as usize, argument(2, 0.5));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("a pool of threads");
    let budget = Duration::from_secs_f64(seconds);
    println!("{} threads, GFLOP/s", rayon::current_num_threads());
    println!("{:>14} {:>14} {:>14} {:>8} {:>8}", "heads", "sequences", "kernel", "forward", "backward");
    for (heads, kv_heads, head_dim) in HEADS {
        for (count, length) in LENGTHS {
            let scale = 1.0 / (head_dim as f64).sqrt();
            let (cap, window, dropout) = (None, None, None);
            let shape = AttnShape { heads, kv_heads, head_dim, scale, cap, causal: true, window, dropout };
            let lengths = vec![length; count];
            let t = count * length;
            let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
            let of = |width: usize| (0..t * width).map(value).collect::<Vec<f32>>();
            let (qw, kw) = (shape.q_width(), shape.kv_width());
            let (q, k, v, g) = (of(qw), of(kw), of(kw), of(qw));
            let (mut o, mut lse) = (of(qw), vec![0f32; t * heads]);
            let (mut dq, mut dk, mut dv) = (of(qw), of(kw), of(kw));
            let product = (count * length * length) as f64 * (heads * head_dim) as f64;
            let kernels = Kernel::ALL.into_iter().filter(|k| k.available()).map(Some);
            for kernel in kernels.chain([None]) {
                let forward = fastest(budget, || match kernel {
                    Some(kernel) => {
                        rounded::attention(kernel, &q, &k, &v, black_box(&mut o), &mut lse, &lengths, &shape);
                    }
                    None => attention(&q, &k, &v, black_box(&mut o), &mut lse, &lengths, &shape),
                });
                let backward = fastest(budget, || {
                    let dq = black_box(&mut dq);
                    match kernel {
                        Some(kernel) => rounded::attention_backward(
                            kernel, &q, &k, &v, &o, &lse, &g, dq, &mut dk, &mut dv, &lengths, &shape,
                        ),
                        None => attention_backward(&q, &k, &v, &o, &lse, &g, dq, &mut dk, &mut dv, &lengths, &shape),
                    }
                });
                let heads = format!("{heads}/{kv_heads} × {head_dim}");
                let sequences = format!("{count} × {length}");
                let kernel = kernel.map_or("f32", Kernel::name);
                let (forward, backward) = (2.0 * product / forward / 1e9, 5.0 * product / backward / 1e9);
                println!("{heads:>14} {sequences:>14} {kernel:>14} {forward:8.0} {backward:8.0}");
            }
        }
    }
}
