//! The integration tests of loram-train. One binary: each test target links the whole workspace again.

mod adapters;
mod batches;
mod crashes;
#[cfg(any(feature = "cuda", feature = "cuda-emulation"))]
mod cuda;
mod equivalence;
mod greedy;
mod initial;
mod magnitude;
mod objectives;
mod preferences;
mod ranks;
mod rate;
mod runs;
mod small;
mod state;
mod steps;
mod threads;
mod trl;
