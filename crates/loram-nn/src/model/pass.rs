//! Data that all parts of a model share in one pass over a batch.

use crate::ops::Sequences;

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
