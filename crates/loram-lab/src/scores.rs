//! `scores.json` of a run folder: the figures of a run that a comparison needs besides `summary.json`.

use crate::grid::{Point, Score};
use crate::{Error, Result};
use loram_io::input::read_text_if_there;
use loram_train::ExampleScores;
use loram_train::Metrics;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Name of the file.
pub const SCORES: &str = "scores.json";

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was trained and scored.
    Finished,
    /// A loss or gradient became NaN or infinite, or all predictions are equal, so that a correlation is not defined: the
    /// learning rate was too high.
    Diverged,
}

/// Loss on text of the base model's own domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgettingFigures {
    /// Data files.
    pub data: Vec<String>,
    /// Loss of the original base model.
    pub before: f64,
    /// Loss of the trained model.
    pub after: f64,
}

/// The cost of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds to initialise the adapters; 0 in full fine-tuning.
    pub start_seconds: f64,
    /// Seconds of training, evaluations included.
    pub train_seconds: f64,
    /// Seconds of scoring afterwards.
    #[serde(default)]
    pub score_seconds: f64,
    /// Largest resident memory of the process in bytes.
    pub peak_rss: u64,
    /// Number of trained parameters.
    pub trainable_parameters: u64,
    /// Bytes of the adapter, or of the model in full fine-tuning.
    pub result_bytes: u64,
    /// Bytes of a checkpoint from which the run can resume; 0 if none was saved.
    pub checkpoint_bytes: u64,
    /// Number of threads.
    pub threads: usize,
}

/// The figures of a run for a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// The coordinates of the run in its grid.
    pub point: Point,
    /// The metric that it is judged by.
    pub score: Score,
    /// How it ended.
    pub outcome: Outcome,
    /// The reason, if it diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Metrics on the selection part, on which learning rates are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Metrics>,
    /// Metrics on the test part, on which nothing is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
    /// Files of both parts.
    pub data: Vec<String>,
    /// Forgetting, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgetting: Option<ForgettingFigures>,
    /// Its cost.
    pub cost: Cost,
    /// Results for each test example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExampleScores>,
}

impl Scores {
    /// Reads the file of a run folder; `None` if there is none.
    pub fn read(dir: &Path) -> Result<Option<Scores>> {
        let path = dir.join(SCORES);
        let Some(text) = read_text_if_there(&path)? else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|e| Error::folder(&path, format!("malformed scores: {e}")))
    }

    /// The score by which the learning rate is chosen; `None` for a run that diverged.
    pub fn selection_score(&self) -> Option<f64> {
        self.selection.as_ref()?.get(&self.score.name).filter(|x| x.is_finite())
    }

    /// The score that is reported; `None` for a run that diverged.
    pub fn test_score(&self) -> Option<f64> {
        self.test.as_ref()?.get(&self.score.name).filter(|x| x.is_finite())
    }
}
