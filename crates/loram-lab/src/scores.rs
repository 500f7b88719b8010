//! `scores.json` in a run folder: what a comparison needs to know of the run beyond `summary.json`.

use crate::grid::{Point, Score};
use crate::{Error, Result};
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
    /// Its loss or a gradient stopped being a number, or it predicts the same for every example, so that a correlation is not
    /// defined: the learning rate was too high.
    Diverged,
}

/// Loss on text of the base model's own domain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ForgettingFigures {
    /// Data files.
    pub data: Vec<String>,
    /// Loss of the untouched base model.
    pub before: f64,
    /// Loss with what was trained.
    pub after: f64,
}

/// What a run cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds to make the starts of the adapters; 0 in full fine-tuning.
    pub start_seconds: f64,
    /// Seconds of training with its evaluations.
    pub train_seconds: f64,
    /// Seconds of scoring afterwards.
    #[serde(default)]
    pub score_seconds: f64,
    /// Largest resident memory of the process in bytes.
    pub peak_rss: u64,
    /// Trained parameters.
    pub trainable_parameters: u64,
    /// Bytes of the adapter, or of the model in full fine-tuning.
    pub result_bytes: u64,
    /// Bytes of a checkpoint from which the run can go on; 0 when none was saved.
    pub checkpoint_bytes: u64,
    /// Threads that it computed with.
    pub threads: usize,
}

/// Everything about a run that a comparison looks at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// What distinguishes the run.
    pub point: Point,
    /// What it is judged by.
    pub score: Score,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, where it did not end well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Figures on the part of the held-out data where learning rates are chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selection: Option<Metrics>,
    /// Figures on the part that nothing was chosen on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Metrics>,
    /// Files of both parts.
    pub data: Vec<String>,
    /// Forgetting, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgetting: Option<ForgettingFigures>,
    /// What it cost.
    pub cost: Cost,
    /// Figures of each test example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub examples: Option<ExampleScores>,
}

impl Scores {
    /// Reads the file of a run folder; `None` when it has none.
    pub fn read(dir: &Path) -> Result<Option<Scores>> {
        let path = dir.join(SCORES);
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(|e| loram_io::Error::io("read", &path, e))?;
        serde_json::from_str(&text).map(Some).map_err(|e| Error::folder(&path, format!("not a file of scores: {e}")))
    }

    /// The score on which the learning rate is chosen; `None` for a run that diverged.
    pub fn selection_score(&self) -> Option<f64> {
        self.selection.as_ref()?.get(&self.score.name).filter(|x| x.is_finite())
    }

    /// The score that is reported.
    pub fn test_score(&self) -> Option<f64> {
        self.test.as_ref()?.get(&self.score.name).filter(|x| x.is_finite())
    }
}
