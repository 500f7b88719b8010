//! Statistics of a comparison: summaries, paired bootstrap intervals, figures of curves.

mod bootstrap;
mod curve;
mod hierarchical;
mod summary;

pub use bootstrap::{Interval, Observations, Resampled, bootstrap, paired_bootstrap};
pub use curve::{Curve, mean_curve};
pub use hierarchical::{Paired, Pooled, pooled};
pub use summary::{mean, quantile, std};
