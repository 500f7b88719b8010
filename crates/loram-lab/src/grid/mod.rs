//! Grids: a base configuration, named arms, and the values over which everything else varies.

mod expand;
mod keys;
mod point;
mod read;
mod run_spec;
mod spec;

pub use point::Point;
pub use run_spec::{Forgetting, RunSpec, Score};
pub use spec::{Axis, Grid, Halving, Keep, Named};
