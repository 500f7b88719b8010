//! A grid as its file describes it.

use crate::Error;
use crate::data::SplitOptions;
use loram_train::config::Key;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::PathBuf;

/// A model, a task or an arm: a name and the keys that it sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// The name in run names, tables and plots.
    pub name: String,
    /// Keys of a training configuration (canonical names), and `score`, `forgetting_data`, `forgetting_samples`.
    pub keys: Map<String, Value>,
}

/// Successive halving over learning rates: short runs with the first seed decide which rates get full runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halving {
    /// One in this many of a round's learning rates takes part in the next round.
    pub factor: usize,
    /// Short rounds before the full runs; the last one has `max_steps / factor` steps.
    pub rounds: usize,
    /// `learning_rate: auto` gets full runs in any case, beside the best rates.
    #[serde(default)]
    pub keep_auto: bool,
}

/// The parts of a run folder that are kept once its scores are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All but checkpoints and full models.
    Adapters,
    /// Everything.
    Everything,
    /// Neither checkpoints, models nor adapters.
    Figures,
}

/// Values of a key that varies.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The key.
    pub key: &'static Key,
    /// Its values.
    pub values: Vec<Value>,
}

/// A grid of runs.
#[derive(Debug, Clone)]
pub struct Grid {
    /// The grid file.
    pub path: PathBuf,
    /// Folder of run folders, divided data and reports.
    pub output_dir: PathBuf,
    /// Keys of every run.
    pub base: Map<String, Value>,
    /// Models.
    pub models: Vec<Named>,
    /// Tasks.
    pub tasks: Vec<Named>,
    /// Arms.
    pub schemes: Vec<Named>,
    /// Keys that vary, the slowest first: `learning_rate`, `r`, `seed`, then those of `grid`.
    pub axes: Vec<Axis>,
    /// How the held-out data are divided.
    pub split: SplitOptions,
    /// Successive halving; `None`: every learning rate gets full runs.
    pub halving: Option<Halving>,
    /// The parts of a run folder that are kept.
    pub keep: Keep,
    /// Number of parallel runs; `None`: one for each core.
    pub jobs: Option<usize>,
}

impl Grid {
    pub(super) fn error(&self, what: impl Into<String>) -> Error {
        Error::Grid { path: self.path.clone(), what: what.into() }
    }

    /// The folder of one run.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.output_dir.join("runs").join(id)
    }
}
