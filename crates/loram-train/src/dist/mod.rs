//! One run over many processes: who they are, and how they agree.
//!
//! - `launch`: the launcher that started this process (mpirun, srun, torchrun, …), from its environment;
//! - [`Collective`]: the operations between ranks, by an engine: MPI (feature `mpi`);
//! - [`ProcessGroup`]: sums, gathered values and agreement on errors, on top of an engine;
//!   `watch` notices ranks whose process has ended;
//! - `deal`: which rank does what; `replicas`: gradients as one buffer, and the checksum of parameters.

mod collective;
mod connect;
mod deal;
mod group;
mod launch;
#[cfg(feature = "mpi")]
mod mpi;
pub(crate) mod replicas;
mod watch;

pub use collective::{Collective, Failure, Lost, Solo, Wire};
pub use connect::{connect, features};
pub use deal::deal;
pub use group::{ProcessGroup, Words};
pub use launch::{Launch, Launcher, detect};
