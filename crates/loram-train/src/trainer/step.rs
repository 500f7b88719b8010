//! Results of a step.

use crate::magnitude::Magnitudes;
use loram_nn::BatchLoss;

/// Results of a step.
pub(super) struct Step {
    pub loss: BatchLoss,
    /// Learning rate, and the share of its peak that it is.
    pub rate: f64,
    pub share: f64,
    pub norm: f64,
    pub tokens: u64,
    pub magnitude: Option<Magnitudes>,
}
