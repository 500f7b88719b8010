//! Reads run folders into records, from which alone reports are made.

use crate::gains;
use crate::grid::{Point, Score};
use crate::metrics_file::{Magnitudes, read_metrics};
use crate::scores::{Cost, Outcome, Scores};
use crate::stats::Curve;
use crate::{Error, Result};
use loram_io::gain_curves::GainCurves;
use loram_train::{Layer, Metrics, TrainConfig};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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
    /// The curve that convergence is judged by: the held-out loss if it has at least three points, else the training loss.
    pub fn curve(&self) -> &Curve {
        if self.eval_curve.steps.len() > 2 { &self.eval_curve } else { &self.train_curve }
    }
}

/// All finished runs below these folders: run folders, output folders of comparisons, or folders of either. Errors: a folder
/// that does not exist, or has no finished run.
pub fn collect(dirs: &[PathBuf]) -> Result<Vec<RunRecord>> {
    let mut out = Vec::new();
    for dir in dirs {
        if !dir.is_dir() {
            return Err(Error::folder(
                dir,
                "no such folder; expected run folders or the output folder of a comparison",
            ));
        }
        let before = out.len();
        walk(dir, 3, &mut out)?;
        if out.len() == before {
            return Err(Error::folder(
                dir,
                "no finished run found: expected folders with config.yaml and summary.json",
            ));
        }
    }
    out.sort_by(|a, b| a.dir.cmp(&b.dir));
    out.dedup_by(|a, b| a.dir == b.dir);
    // gathered folders may contain a run twice
    let mut seen = BTreeSet::new();
    out.retain(|r| !r.separate || seen.insert(r.scores.point.id()));
    let mut models = BTreeSet::new();
    for run in out.iter_mut().filter(|r| r.separate) {
        if models.insert(run.scores.point.model.clone()) {
            run.gains = gains::read(&run.dir, &run.scores.point.model)?;
        }
    }
    Ok(out)
}

fn walk(dir: &Path, depth: usize, out: &mut Vec<RunRecord>) -> Result<()> {
    if dir.join("config.yaml").exists() {
        out.extend(read(dir)?);
        return Ok(());
    }
    if depth == 0 {
        return Ok(());
    }
    let entries = std::fs::read_dir(dir).map_err(|e| loram_io::Error::io("read", dir, e))?;
    let hidden = |p: &PathBuf| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with('.'));
    let mut below: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !hidden(p)).collect();
    below.sort();
    below.iter().try_for_each(|d| walk(d, depth - 1, out))
}

/// Reads a run folder; `None` if the run is not finished.
fn read(dir: &Path) -> Result<Option<RunRecord>> {
    let config = TrainConfig::layered(&[Layer::from_file(dir.join("config.yaml"))?])?;
    let summary = json(&dir.join("summary.json"))?;
    let saved = Scores::read(dir)?;
    let separate = saved.is_some();
    let scores = match saved {
        Some(scores) => scores,
        None if summary["status"].is_null() || summary["status"] == "interrupted" => return Ok(None),
        None => from_summary(dir, &config, &summary)?,
    };
    let metrics = read_metrics(&dir.join("metrics.jsonl"))?;
    Ok(Some(RunRecord {
        dir: dir.to_path_buf(),
        scores,
        separate,
        train_curve: metrics.train,
        eval_curve: metrics.eval,
        magnitudes: metrics.magnitudes,
        gains: None,
        config,
        environment: json(&dir.join("environment.json"))?,
        summary,
    }))
}

fn json(path: &Path) -> Result<Value> {
    match loram_io::input::read_text_if_there(path)? {
        None => Ok(Value::Null),
        Some(text) => serde_json::from_str(&text).map_err(|e| Error::folder(path, e.to_string())),
    }
}

/// Scores of a run of `loram train`, which has one part of held-out data instead of two.
fn from_summary(dir: &Path, c: &TrainConfig, summary: &Value) -> Result<Scores> {
    let metrics = |key: &str| -> Result<Option<Metrics>> {
        match &summary[key] {
            Value::Null => Ok(None),
            v => serde_json::from_value(v.clone())
                .map(Some)
                .map_err(|e| Error::folder(&dir.join("summary.json"), format!("{key}: {e}"))),
        }
    };
    let after = metrics("eval_after")?;
    let whole = summary["scheme"].as_str().unwrap_or("unknown").to_string();
    let last = |s: &str| s.trim_end_matches('/').rsplit('/').next().unwrap_or(s).to_string();
    let full = whole == "full";
    Ok(Scores {
        point: Point {
            model: last(&c.model_name_or_path),
            task: c.train_data.iter().map(|d| last(d)).collect::<Vec<_>>().join("+"),
            arm: whole,
            r: (!full).then_some(c.r as u64),
            learning_rate: c.learning_rate,
            seed: c.seed,
            others: Default::default(),
            rung: None,
        },
        score: Score { name: c.best_metric().into(), more_is_better: c.more_is_better() },
        outcome: Outcome::Finished,
        error: None,
        selection: after.clone(),
        test: after,
        data: c.eval_data.clone(),
        forgetting: None,
        cost: Cost {
            train_seconds: summary["seconds"].as_f64().unwrap_or(0.0),
            peak_rss: summary["peak_rss"].as_u64().unwrap_or(0),
            trainable_parameters: summary["trainable_parameters"].as_u64().unwrap_or(0),
            ..Cost::default()
        },
        examples: None,
    })
}
