//! Stand-ins for a GPU in a build without one: types without values.

use crate::compute::Compute;
use crate::{Error, Result};

/// A GPU.
#[derive(Debug, Clone, PartialEq)]
pub enum Info {}

impl Info {
    /// Its name.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// Bytes of its memory.
    pub fn total(&self) -> u64 {
        match *self {}
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        match *self {}
    }

    /// The most bytes that this process has held.
    pub fn peak(&self) -> u64 {
        match *self {}
    }
}

/// Returns the GPU that the process uses. The error says why there is none.
pub fn info() -> Result<Info> {
    Err(Error::NoCuda("this build has no support for it: build loram with `--features cuda`".into()))
}

/// Waits for all work on the GPU.
pub fn synchronize() -> Result<()> {
    Ok(())
}

/// The launches of a kernel, or the products of a shape.
#[derive(Debug, Clone, PartialEq)]
pub enum Timing {}

impl Timing {
    /// Name of the kernel or product.
    pub fn name(&self) -> &str {
        match *self {}
    }

    /// How often it ran.
    pub fn calls(&self) -> usize {
        match *self {}
    }

    /// How long all calls took on the GPU.
    pub fn seconds(&self) -> f64 {
        match *self {}
    }
}

/// Starts measuring all work on the GPU: there is none.
pub fn profile() {}

/// Ends [`profile`].
pub fn timings() -> Result<Vec<Timing>> {
    Ok(Vec::new())
}

/// Runs `f` and returns a failure on the GPU as an error.
pub(crate) fn catch<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
    f()
}

#[derive(Debug)]
pub enum Buffer {}

impl Buffer {
    pub fn compute(&self) -> Compute {
        match *self {}
    }
}

/// A weight in the GPU's memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Resident {}

pub(crate) fn end_of_step() {}
