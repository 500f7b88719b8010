//! What stands for a GPU in a build without one: types of which there is no value.

use crate::tensor::Compute;
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

/// The GPU that a process uses, or why there is none.
pub fn info() -> Result<Info> {
    Err(Error::NoCuda("this build has no support for it: build loram with `--features cuda`".into()))
}

/// Waits for all work on the GPU.
pub fn synchronize() -> Result<()> {
    Ok(())
}

/// Runs `f`; a failure on the GPU becomes an error.
pub fn catch<R>(f: impl FnOnce() -> Result<R>) -> Result<R> {
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

pub(crate) fn trim(_: u64) {}
