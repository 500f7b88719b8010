//! The result type of all experiments.

/// Result of an experiment.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
