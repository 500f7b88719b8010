//! Data that all parts of a model share in one pass over a batch.

use crate::compute::Compute;
use crate::ops::Sequences;
use crate::{Result, cuda};

/// A pass over sequences.
pub(crate) struct Pass<'a> {
    pub sequences: Sequences<'a>,
    /// Seed of the dropout in this step; `None`: no dropout.
    pub step: Option<u64>,
    /// Tokens before those of this pass that are in the caches (generation).
    pub past: usize,
}

impl<'a> Pass<'a> {
    /// A pass over whole sequences.
    pub fn new(lengths: &'a [usize], positions: &'a [u32], step: Option<u64>) -> Pass<'a> {
        Pass { sequences: Sequences::new(lengths, positions), step, past: 0 }
    }
}

/// Runs a pass over a model in `compute`. On the CPU one of rayon's threads runs it, since work that any other thread hands out is a
/// message to the pool and wakes two threads; on a GPU a failure ends it.
pub(crate) fn run<R: Send>(compute: Compute, pass: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    match compute.on_gpu() {
        false => rayon::scope(|_| pass()),
        true => cuda::catch(pass),
    }
}

/// How the backward pass of a head is run.
pub(crate) struct Backward {
    /// Factor on the sum of losses.
    pub scale: f64,
    /// True when something below the head is trained, so that the gradient of the head's input is needed.
    pub through: bool,
    /// Seed of the dropout.
    pub step: u64,
}
