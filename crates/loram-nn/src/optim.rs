//! Optimiser steps on tensors of the CPU or GPU, and what decides about their size.

use crate::kernels::optim::{AdamW, Sgd, adamw_step, sgd_step};
use crate::tensor::{Tensor, typed};

/// Step number `step` (from 1) of AdamW on the parameter `p` with gradient `g` and moments `m` and `v`.
pub fn adamw(p: &mut Tensor, g: &Tensor, m: &mut Tensor, v: &mut Tensor, how: &AdamW, step: u64) {
    typed!(
        g, T, adamw_step::<T>(p.as_mut_slice(), g.as_slice(), m.as_mut_slice(), v.as_mut_slice(), how, step),
        gpu: crate::cuda::ops::adamw(p, g, m, v, how, step)
    );
}

/// Step number `step` (from 1) of SGD on the parameter `p` with gradient `g`; `buffer` is for momentum.
pub fn sgd(p: &mut Tensor, g: &Tensor, buffer: Option<&mut Tensor>, how: &Sgd, step: u64) {
    typed!(
        g, T, sgd_step::<T>(p.as_mut_slice(), g.as_slice(), buffer.map(Tensor::as_mut_slice), how, step),
        gpu: crate::cuda::ops::sgd(p, g, buffer, how, step)
    );
}

/// Σ x² of each tensor in f64, the same for any number of threads.
pub fn sum_squares(tensors: &[&Tensor]) -> Vec<f64> {
    let Some(first) = tensors.first() else { return Vec::new() };
    let of = |x: &&Tensor| match x.compute() {
        crate::Compute::F64 => x.as_slice::<f64>().iter().map(|x| x * x).sum(),
        _ => loram_core::magnitude::sums(x.f32s()).1,
    };
    match first.compute().on_gpu() {
        false => tensors.iter().map(of).collect(),
        true => crate::cuda::on_gpu!(crate::cuda::ops::sum_squares(tensors)),
    }
}
