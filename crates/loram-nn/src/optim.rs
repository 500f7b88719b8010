//! Optimiser steps on tensors of the CPU or GPU, and the norms that clipping reads.

use crate::kernels::optim::{Sgd, adamw_step, sgd_step};
use crate::tensor::{Tensor, typed};
use crate::{Result, cuda};
use rayon::prelude::*;

pub use crate::adamw::AdamWStep;

/// Step number `step` (from 1) of AdamW on all parameters at once. All are of the same number type.
///
/// # Errors
/// A failure of the GPU.
pub fn adamw(steps: &mut [AdamWStep<'_>], step: u64) -> Result<()> {
    match steps.first().is_some_and(|s| s.p.compute().on_gpu()) {
        false => steps.par_iter_mut().for_each(|s| on_cpu(s, step)),
        true => cuda::on_gpu!(cuda::catch(|| {
            cuda::many::adamw(steps, step);
            Ok(())
        })?),
    }
    Ok(())
}

fn on_cpu(s: &mut AdamWStep<'_>, step: u64) {
    typed!(
        s.g, T, adamw_step::<T>(s.p.as_mut_slice(), s.g.as_slice(), s.m.as_mut_slice(), s.v.as_mut_slice(), &s.how, step),
        gpu: unreachable!("all parameters are in one place")
    );
}

/// Every element of every tensor times `factor`.
///
/// # Errors
/// A failure of the GPU.
pub fn scale(tensors: &mut [&mut Tensor], factor: f64) -> Result<()> {
    match tensors.first().is_some_and(|t| t.compute().on_gpu()) {
        false => tensors.par_iter_mut().for_each(|t| t.scale(factor)),
        true => cuda::on_gpu!(cuda::catch(|| {
            cuda::many::scale(tensors, factor);
            Ok(())
        })?),
    }
    Ok(())
}

/// Sets every element of every tensor to 0.
pub(crate) fn zero(tensors: &mut [&mut Tensor]) {
    match tensors.first().is_some_and(|t| t.compute().on_gpu()) {
        false => tensors.par_iter_mut().for_each(|t| t.fill_zero()),
        true => cuda::on_gpu!(cuda::many::zero(tensors)),
    }
}

/// Step number `step` (from 1) of SGD on the parameter `p` with gradient `g`; `buffer` is for momentum.
///
/// # Errors
/// A failure of the GPU.
pub fn sgd(p: &mut Tensor, g: &Tensor, buffer: Option<&mut Tensor>, how: &Sgd, step: u64) -> Result<()> {
    cuda::catch(|| {
        typed!(
            g, T, sgd_step::<T>(p.as_mut_slice(), g.as_slice(), buffer.map(Tensor::as_mut_slice), how, step),
            gpu: cuda::ops::sgd(p, g, buffer, how, step)
        );
        Ok(())
    })
}

/// Σ x² of each tensor in f64, the same for any number of threads.
///
/// # Errors
/// A failure of the GPU.
pub fn sum_squares(tensors: &[&Tensor]) -> Result<Vec<f64>> {
    let Some(first) = tensors.first() else { return Ok(Vec::new()) };
    let of = |x: &&Tensor| match x.compute() {
        crate::compute::Compute::F64 => x.as_slice::<f64>().iter().map(|x| x * x).sum(),
        _ => loram_core::magnitude::sums(x.f32s()).1,
    };
    match first.compute().on_gpu() {
        false => Ok(tensors.par_iter().map(of).collect()),
        true => cuda::on_gpu!(cuda::catch(|| Ok(cuda::many::sum_squares(tensors)))),
    }
}
