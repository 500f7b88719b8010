//! Grids: a base configuration, named arms, and the values over which everything else varies.

mod expand;
mod keys;
mod point;
mod read;

pub use expand::{Forgetting, RunSpec, Score};
pub use point::Point;
pub(crate) use point::file_name;

use crate::{Error, Result};
use loram_train::config::Key;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// A model, a task or an arm: a name, and the keys that it sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Named {
    /// Its name in ids, tables and plots.
    pub name: String,
    /// Keys of a training configuration (canonical names), and `score`, `forgetting_data`, `forgetting_samples`.
    pub keys: Map<String, Value>,
}

/// How the held-out data are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions {
    /// Share of the held-out records on which the learning rate is chosen; the rest is for the score.
    pub selection: f64,
    /// Share of the training records that is held out where a task has no `eval_data`.
    pub holdout: f64,
    /// Seed of the division.
    pub seed: u64,
    /// Train on this many records, chosen by the seed; `None`: all.
    pub train_samples: Option<usize>,
    /// Take at most this many records for the choice.
    pub selection_samples: Option<usize>,
    /// Take at most this many records for the score.
    pub test_samples: Option<usize>,
}

impl Default for SplitOptions {
    fn default() -> SplitOptions {
        SplitOptions {
            selection: 0.5,
            holdout: 0.1,
            seed: 0,
            train_samples: None,
            selection_samples: None,
            test_samples: None,
        }
    }
}

/// Successive halving over learning rates: short runs with the first seed decide which rates get full ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halving {
    /// Of the rates of a round, one in this many goes on.
    pub factor: usize,
    /// Short rounds before the full runs; the last one has `max_steps / factor` steps.
    pub rounds: usize,
}

/// What of a run folder stays once its scores are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Everything but checkpoints and whole models.
    Adapters,
    /// Everything.
    Everything,
    /// Figures only.
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
    /// Its file.
    pub path: PathBuf,
    /// Folder of run folders, data splits and reports.
    pub output_dir: PathBuf,
    /// Keys of every run.
    pub base: Map<String, Value>,
    /// Models.
    pub models: Vec<Named>,
    /// Tasks.
    pub tasks: Vec<Named>,
    /// Arms.
    pub schemes: Vec<Named>,
    /// Keys that vary: `learning_rate`, `r`, `seed` first.
    pub axes: Vec<Axis>,
    /// Division of the held-out data.
    pub split: SplitOptions,
    /// Successive halving, where wanted.
    pub halving: Option<Halving>,
    /// What stays of a run.
    pub keep: Keep,
    /// Runs at a time; `None`: as many as there are cores.
    pub jobs: Option<usize>,
}

impl Grid {
    fn error(&self, what: impl Into<String>) -> Error {
        Error::Grid { path: self.path.clone(), what: what.into() }
    }

    /// The folder of one run.
    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.output_dir.join("runs").join(id)
    }

    /// Every full run, and with halving those of its short rounds; checked, in the order in which they are made.
    pub fn runs(&self) -> Result<Vec<RunSpec>> {
        expand::runs(self)
    }
}
