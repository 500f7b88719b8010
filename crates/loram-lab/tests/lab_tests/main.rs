//! The integration tests of loram-lab. One binary: each test target links the whole workspace again.

mod analysis;
mod hostile;
mod statistics;
