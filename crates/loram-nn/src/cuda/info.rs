//! The GPU as a program sees it: its name and memory.

use super::device::opened;
use super::memory::peak;
use crate::{Error, Result};

/// A GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    name: String,
    total: u64,
    free: u64,
    peak: u64,
}

impl Info {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of its memory.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that are free.
    pub fn free(&self) -> u64 {
        self.free
    }

    /// The most bytes that this process has held.
    pub fn peak(&self) -> u64 {
        self.peak
    }
}

/// Returns the GPU that the process uses. The error says why there is none.
pub fn info() -> Result<Info> {
    let driver = opened().map_err(|what| Error::NoCuda(what.clone()))?;
    let (free, total) = driver.memory().map_err(Error::Cuda)?;
    Ok(Info { name: driver.name().to_string(), total, free, peak: peak() })
}
