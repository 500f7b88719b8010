//! A finished run, as reports see it.

use crate::metrics_file::Magnitudes;
use crate::scores::Scores;
use crate::stats::Curve;
use loram_io::gain_curves::GainCurves;
use loram_train::{RateSearch, TrainConfig};
use serde_json::Value;
use std::path::PathBuf;

/// The files of a run that a report needs.
#[derive(Debug, Clone)]
pub struct RunRecord {
    /// The run folder.
    pub dir: PathBuf,
    /// Scores; those of `summary.json` for a run that is not part of a comparison.
    pub scores: Scores,
    /// True if the learning rate is chosen on other data than the score is computed on.
    pub separate: bool,
    /// Training loss by step; each value is the mean since the previous one.
    pub train_curve: Curve,
    /// Loss on the held-out data by step.
    pub eval_curve: Curve,
    /// Magnitudes by layer and step, if the run recorded them.
    pub magnitudes: Option<Magnitudes>,
    /// Gains of the model's weights, for the first run of each model of a comparison.
    pub gains: Option<GainCurves>,
    /// Resolved configuration.
    pub config: TrainConfig,
    /// `environment.json`.
    pub environment: Value,
    /// `summary.json`; null for a run that diverged.
    pub summary: Value,
}

impl RunRecord {
    /// The peak learning rate as a number; `None` where no file has it.
    pub fn learning_rate(&self) -> Option<f64> {
        let found = || self.environment["learning_rate"]["learning_rate"].as_f64();
        self.scores.point.learning_rate.value().or_else(found)
    }

    /// The line search behind the learning rate, if there was one.
    pub fn search(&self) -> Option<RateSearch> {
        serde_json::from_value(self.environment["learning_rate"]["search"].clone()).ok()
    }

    /// The curve that convergence is judged by: the held-out loss if it has at least three points, else the training loss.
    pub fn curve(&self) -> &Curve {
        if self.eval_curve.steps.len() > 2 { &self.eval_curve } else { &self.train_curve }
    }
}
