//! The operations between the ranks of a run, and the run of one process.

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};

/// Why an operation between ranks came to nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This rank's process has ended, or its machine cannot be reached.
    Lost(usize),
    /// The engine's own error.
    Engine(String),
}

/// The rank whose process has ended, once one has; clones share it. An engine looks at it while it waits.
#[derive(Debug, Clone, Default)]
pub struct Lost(Arc<OnceLock<usize>>);

impl Lost {
    /// Notes that a rank is gone. The first one counts.
    pub fn note(&self, rank: usize) {
        let _ = self.0.set(rank);
    }

    /// The rank that is gone.
    pub fn rank(&self) -> Option<usize> {
        self.0.get().copied()
    }

    /// An error once a rank is gone.
    ///
    /// # Errors
    /// [`Failure::Lost`].
    pub fn check(&self) -> Result<(), Failure> {
        self.rank().map_or(Ok(()), |rank| Err(Failure::Lost(rank)))
    }
}

/// The number type in which values travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Single precision.
    F32,
    /// bfloat16: values are rounded to the nearest before they are sent, and sums, which have more digits, too.
    Bf16,
}

/// Operations that all ranks of a run call in the same order, from one thread of each.
pub trait Collective: Debug + Send + Sync {
    /// Name of the engine, such as `MPI`.
    fn engine(&self) -> &'static str;

    /// Number of this process, from 0.
    fn rank(&self) -> usize;

    /// Number of processes.
    fn world(&self) -> usize;

    /// Replaces values by their sums over all ranks. All ranks receive the same bits, and the same values give the same bits
    /// again: terms are added in an order that no timing changes. They travel as `wire` says.
    ///
    /// # Errors
    /// A rank that is gone; an error of the engine.
    fn all_reduce_sum(&self, values: &mut [f32], wire: Wire) -> Result<(), Failure>;

    /// Fills `all` with the bytes of every rank, in their order; each gives as many.
    ///
    /// # Errors
    /// See [`Collective::all_reduce_sum`].
    fn all_gather(&self, mine: &[u8], all: &mut [u8]) -> Result<(), Failure>;

    /// Fills `bytes` with those of rank `root`.
    ///
    /// # Errors
    /// See [`Collective::all_reduce_sum`].
    fn broadcast(&self, bytes: &mut [u8], root: usize) -> Result<(), Failure>;

    /// Where it is noted that a rank is gone; operations that wait for one end then.
    fn lost(&self) -> &Lost;
}

/// The only process of a run.
#[derive(Debug, Default)]
pub struct Solo(Lost);

impl Collective for Solo {
    fn engine(&self) -> &'static str {
        "one process"
    }

    fn rank(&self) -> usize {
        0
    }

    fn world(&self) -> usize {
        1
    }

    fn all_reduce_sum(&self, _: &mut [f32], _: Wire) -> Result<(), Failure> {
        Ok(())
    }

    fn all_gather(&self, mine: &[u8], all: &mut [u8]) -> Result<(), Failure> {
        all.copy_from_slice(mine);
        Ok(())
    }

    fn broadcast(&self, _: &mut [u8], _: usize) -> Result<(), Failure> {
        Ok(())
    }

    fn lost(&self) -> &Lost {
        &self.0
    }
}
