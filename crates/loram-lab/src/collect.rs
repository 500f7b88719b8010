//! Reads run folders into records, from which alone reports are made.

use crate::arms;
use crate::gains;
use crate::grid::{Point, Score};
use crate::metrics_file::read_metrics;
use crate::names::data_name;
use crate::planned::{self, Planned};
use crate::run_record::RunRecord;
use crate::scores::{Cost, Outcome, Scores};
use crate::{Error, Result};
use loram_train::config::LearningRate;
use loram_train::{Layer, Metrics, TrainConfig};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Contents of the folders of a report.
#[derive(Debug, Clone, Default)]
pub struct Collection {
    /// Finished runs.
    pub runs: Vec<RunRecord>,
    /// The runs that their comparisons consist of.
    pub planned: Vec<Planned>,
    /// Folders of runs of `loram train` that repeat another one, with the same settings and seed. They are left out.
    pub repeated: Vec<PathBuf>,
}

impl Collection {
    /// Keeps the runs that were given this learning rate, and what is planned of them.
    pub fn keep_rate(&mut self, rate: LearningRate) {
        self.runs.retain(|r| r.scores.point.learning_rate == rate);
        for planned in &mut self.planned {
            planned.runs.retain(|p| p.learning_rate == rate);
            // of one rate nothing is dropped
            planned.halving = None;
            planned.runs.retain(|p| p.rung.is_none());
        }
    }
}

/// All finished runs below these folders: run folders, output folders of comparisons, or folders of either. Errors: a folder
/// that does not exist, or has no finished run.
pub fn collect(dirs: &[PathBuf]) -> Result<Collection> {
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
    let repeated = arms::remove_repeated(&mut out);
    let comparisons: BTreeSet<PathBuf> = out.iter().filter_map(arms::comparison).map(Path::to_path_buf).collect();
    let read = |c: PathBuf| planned::read(&c).map(|p| p.map(|p| (c, p))).transpose();
    let mut planned = comparisons.into_iter().filter_map(read).collect::<Result<BTreeMap<_, _>>>()?;
    arms::tell_apart(&mut out, &mut planned);
    let mut models = BTreeSet::new();
    for run in out.iter_mut().filter(|r| r.separate) {
        if models.insert(run.scores.point.model.clone()) {
            run.gains = gains::read(&run.dir, &run.scores.point.model)?;
        }
    }
    Ok(Collection { runs: out, planned: planned.into_values().collect(), repeated })
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
            task: c.train_data.iter().map(|d| data_name(d)).collect::<Vec<_>>().join("+"),
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
