//! Products of activations with weights, in GFLOP/s: f32 and every kernel for bf16 of this processor, x·Wᵀ and dy·W; for each kernel
//! also with weights that are decoded from blocks of a GGUF file, and the time of decoding alone as a share of the product.
//!
//!     cargo run --release --example products [-- THREADS [TOKENS [SECONDS]]]
//!
//! Rounding of activations and packing of weights are part of a product. Figures are those of the fastest of many calls, so that they
//! hold on a busy machine too. `bench/step/products.py` prints the same of torch.

mod common;

use common::fastest;
use half::bf16;
use loram_core::{Q4_1, Q4K, Q6K, Q8_0, StoredWeight, WeightFormat};
use loram_nn::kernels::bf16::{Kernel, Matrix, Number, Right, Rounded, product};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use rayon::prelude::*;
use std::hint::black_box;
use std::time::Duration;

/// Outputs and inputs of the layers of SmolLM2-135M, of its head, and of a 7B Llama.
const SHAPES: [(usize, usize); 8] =
    [(576, 576), (192, 576), (1536, 576), (576, 1536), (49152, 576), (4096, 4096), (11008, 4096), (4096, 11008)];

/// Formats of blocks.
const FORMATS: [&dyn WeightFormat; 4] = [&Q4_1, &Q8_0, &Q4K, &Q6K];

fn main() {
    let argument = |i: usize, default: f64| std::env::args().nth(i).map_or(default, |a| a.parse().expect("a number"));
    let (threads, t, seconds) = (argument(1, 0.0) as usize, argument(2, 1500.0) as usize, argument(3, 0.5));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("a pool of threads");
    let budget = Duration::from_secs_f64(seconds);
    println!("{t} tokens, {} threads, GFLOP/s", rayon::current_num_threads());
    println!("{:>15} {:>14} {:>8} {:>8}", "n × k", "kernel", "x·Wᵀ", "dy·W");
    for (n, k) in SHAPES {
        let value = |i: usize| ((i as u32).wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
        let w: Vec<bf16> = (0..n * k).map(|i| bf16::from_f32(value(i))).collect();
        let x: Vec<f32> = (0..t * k).map(value).collect();
        let dy: Vec<f32> = (0..t * n).map(value).collect();
        let (mut y, mut dx) = (vec![0.0f32; t * n], vec![0.0f32; t * k]);
        let rate = |seconds: f64| 2.0 * (t * n * k) as f64 / seconds / 1e9;
        let line = |kernel: &str, forward: f64, backward: f64| {
            println!("{:>15} {kernel:>14} {:8.0} {:8.0}", format!("{n} × {k}"), rate(forward), rate(backward));
        };
        let bytes = bytemuck::cast_slice(&w);
        for kernel in Kernel::ALL.into_iter().filter(|k| k.available()) {
            let w = Matrix::new(bytes, Number::Bf16, n, k);
            let forward = fastest(budget, || {
                let x = Rounded::new(View::new(&x, t, k));
                product(kernel, ViewMut::new(black_box(&mut y), t, n), false, &x, Right::Transposed(w), &[]);
            });
            let backward = fastest(budget, || {
                let dy = Rounded::new(View::new(&dy, t, n));
                product(kernel, ViewMut::new(black_box(&mut dx), t, k), false, &dy, Right::Plain(w), &[]);
            });
            line(kernel.name(), forward, backward);
            for format in FORMATS.into_iter().filter(|f| k.is_multiple_of(f.block_values())) {
                let blocks: Vec<u8> = (0..format.bytes_of(n * k)).map(|i| (i * 97 % 89) as u8).collect();
                let w = StoredWeight::new(format, &blocks[..], n, k);
                let forward = fastest(budget, || {
                    let x = Rounded::new(View::new(&x, t, k));
                    product(kernel, ViewMut::new(black_box(&mut y), t, n), false, &x, Right::StoredTransposed(w), &[]);
                });
                let backward = fastest(budget, || {
                    let dy = Rounded::new(View::new(&dy, t, n));
                    product(kernel, ViewMut::new(black_box(&mut dx), t, k), false, &dy, Right::Stored(w), &[]);
                });
                line(format.name(), forward, backward);
                let rows: Vec<usize> = (0..n).step_by(32).collect();
                let decoding = fastest(budget, || {
                    rows.par_iter().for_each_init(
                        || vec![0.0; 32 * 256],
                        |values, &row| {
                            for column in (0..k).step_by(256) {
                                let columns = column..(column + 256).min(k);
                                let width = columns.len();
                                w.read_tile(row..(row + 32).min(n), columns, black_box(values), width);
                            }
                        },
                    );
                });
                println!("{:>31} decoding takes {:.1} % of x·Wᵀ", "", 100.0 * decoding / forward);
            }
        }
        let w: Vec<f32> = w.iter().map(|x| x.to_f32()).collect();
        let forward = fastest(budget, || {
            let (x, w) = (View::new(&x, t, k), View::new(&w, n, k));
            gemm(ViewMut::new(black_box(&mut y), t, n), false, 1.0, x, w.t());
        });
        let backward = fastest(budget, || {
            let (dy, w) = (View::new(&dy, t, n), View::new(&w, n, k));
            gemm(ViewMut::new(black_box(&mut dx), t, k), false, 1.0, dy, w);
        });
        line("f32", forward, backward);
    }
}
