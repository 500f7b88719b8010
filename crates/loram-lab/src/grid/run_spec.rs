//! One run of a grid.

use super::point::Point;
use crate::data::Split;
use loram_train::TrainConfig;
use serde::{Deserialize, Serialize};

/// The metric that runs are judged by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Name of the metric.
    pub name: String,
    /// True if larger values are better.
    pub more_is_better: bool,
}

/// Text of the base model's own domain, on which forgetting is measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgetting {
    /// Data files.
    pub data: Vec<String>,
    /// Use at most this many records.
    pub samples: Option<usize>,
}

/// One run of a grid.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// Its coordinates in the grid.
    pub point: Point,
    /// Its configuration, as `loram train` reads it.
    pub config: TrainConfig,
    /// Its data, divided.
    pub split: Split,
    /// The metric that it is judged by.
    pub score: Score,
    /// Data on which forgetting is measured, if any.
    pub forgetting: Option<Forgetting>,
}

impl RunSpec {
    /// The name of the run and its folder.
    pub fn id(&self) -> String {
        self.point.id()
    }
}
