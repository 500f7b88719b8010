//! Data that all parts of a model share in one pass over a batch.

use crate::compute::Compute;
use crate::ops::{self, Sequences};
use crate::tensor::Tensor;
use crate::{Result, cuda};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// A pass over sequences.
pub(crate) struct Pass<'a> {
    pub sequences: Sequences<'a>,
    /// Seed of the dropout in this step; `None`: no dropout.
    pub step: Option<u64>,
    /// For each sequence, the tokens before those of this pass that are in its caches (generation); empty: none.
    pub past: &'a [usize],
    /// Of models with relative positions.
    pub relative: Relative,
}

/// The embedding of relative positions that the blocks of a pass share, and its gradient.
#[derive(Debug, Default)]
pub(crate) struct Relative {
    embedding: OnceLock<Tensor>,
    /// `None` where nothing of it is trained.
    gradient: Mutex<Option<Tensor>>,
}

impl Relative {
    /// Sets the embedding (rows, hidden), once in a pass; `trains` asks for its gradient.
    pub fn set(&self, embedding: Tensor, trains: bool) {
        let zeros = trains.then(|| Tensor::zeros(embedding.compute(), embedding.rows(), embedding.cols()));
        *self.gradient() = zeros;
        self.embedding.set(embedding).expect("one embedding in a pass");
    }

    pub fn embedding(&self) -> &Tensor {
        self.embedding.get().expect("a model with relative positions embeds them first")
    }

    /// Returns whether anything of the embedding is trained.
    pub fn wants_gradient(&self) -> bool {
        self.gradient().is_some()
    }

    pub fn add_gradient(&self, d: &Tensor) {
        if let Some(sum) = self.gradient().as_mut() {
            ops::add_assign(sum, d);
        }
    }

    /// The gradient of all blocks.
    pub fn take_gradient(&self) -> Option<Tensor> {
        self.gradient().take()
    }

    fn gradient(&self) -> MutexGuard<'_, Option<Tensor>> {
        self.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Pass<'a> {
    /// A pass over whole sequences.
    pub fn new(lengths: &'a [usize], positions: &'a [u32], step: Option<u64>) -> Pass<'a> {
        Pass { sequences: Sequences::new(lengths, positions), step, past: &[], relative: Relative::default() }
    }

    /// The length of each sequence with the tokens in its caches.
    pub fn totals(&self) -> impl Iterator<Item = usize> {
        let past = self.past.iter().copied().chain(std::iter::repeat(0));
        self.sequences.lengths.iter().zip(past).map(|(n, past)| past + n)
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
