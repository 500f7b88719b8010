//! Every operation on the GPU (or in its emulation) against the same operation on the CPU, over odd shapes, in f32 and
//! in bf16. Inputs are numbers that bf16 holds exactly, so that only the arithmetic differs.

mod attention;
mod elementwise;
mod failures;
mod linear;
mod loss_optim;
mod memory;
mod mixture;
mod packed;
mod rows;

use crate::compute::Compute;
use crate::tensor::Tensor;

/// Number types on the GPU.
const GPU: [Compute; 2] = [Compute::CudaF32, Compute::CudaBf16];

/// (rows, cols) with single ones, primes, and sizes around warps and blocks.
const SHAPES: [(usize, usize); 7] = [(1, 1), (1, 257), (5, 3), (7, 32), (2, 64), (33, 31), (3, 1030)];

/// Multiples of 1/64 in −1..1.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 129) as f32 / 64.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

fn random(rows: usize, cols: usize, seed: u64) -> Tensor {
    Tensor::from_f32(Compute::F32, rows, cols, &numbers(rows * cols, seed))
}

/// The tensor on the GPU.
fn on(compute: Compute, t: &Tensor) -> Tensor {
    Tensor::from_f32(compute, t.rows(), t.cols(), t.f32s())
}

/// Every element is right to a share of the largest one, or of 0.3 where large terms cancel.
#[track_caller]
fn close(what: &str, compute: Compute, got: &Tensor, want: &Tensor) {
    assert_eq!((got.rows(), got.cols()), (want.rows(), want.cols()), "{what}");
    let tolerance = if compute == Compute::CudaBf16 { 1.5e-2 } else { 2e-5 };
    let (got, want) = (got.to_f32_vec(), want.to_f32_vec());
    let size = want.iter().fold(0.3f32, |m, x| m.max(x.abs()));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!((g - w).abs() <= tolerance * size, "{what} in {compute:?}: element {i} is {g} instead of {w}");
    }
}
