//! The runs of a grid.

use super::point::Point;
use super::run_spec::{Forgetting, RunSpec, Score};
use super::spec::{Axis, Grid, Named};
use crate::data::Split;
use crate::{Error, Result};
use loram_train::TrainConfig;
use loram_train::config::{FinetuningType, Key, Layer, Mark, Origin};
use loram_train::objective::metrics;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl Grid {
    /// Every full run and, with halving, the short runs of its rounds, in the order in which they are run. Errors: a
    /// configuration that is not valid, two runs with the same name.
    pub fn runs(&self) -> Result<Vec<RunSpec>> {
        check_count(self)?;
        let mut out = Vec::new();
        let mut ids = BTreeSet::new();
        for (model, task, arm) in self.combinations() {
            for spec in of_arm(self, model, task, arm)? {
                if !ids.insert(spec.id()) {
                    return Err(self.error(format!(
                        "two runs would have the folder `{}`: names and values must differ in letters, digits, - or _",
                        spec.id()
                    )));
                }
                out.push(spec);
            }
        }
        // short rounds first; then seed by seed, so that all arms have a first result early
        out.sort_by_key(|s| (s.point.rung.unwrap_or(usize::MAX), s.point.seed));
        Ok(out)
    }

    fn combinations(&self) -> impl Iterator<Item = (&Named, &Named, &Named)> {
        let with_tasks = self.models.iter().flat_map(|m| self.tasks.iter().map(move |t| (m, t)));
        with_tasks.flat_map(|(m, t)| self.schemes.iter().map(move |a| (m, t, a)))
    }
}

/// Runs of a grid: a list too much multiplies them beyond what memory and a lifetime hold.
const MAX_RUNS: usize = 100_000;

/// Fails before any run is made if there would be more than that.
fn check_count(grid: &Grid) -> Result<()> {
    let values =
        |parts: [&Named; 3], axis: &Axis| match parts.iter().rev().find_map(|part| part.keys.get(axis.key.name)) {
            Some(Value::Array(list)) if axis.key.is(Mark::Axis) => list.len(),
            Some(_) => 1,
            None => axis.values.len(),
        };
    let mut all = 0usize;
    for (model, task, arm) in grid.combinations() {
        let of_arm = grid.axes.iter().map(|a| values([model, task, arm], a)).fold(1, usize::saturating_mul);
        all = all.saturating_add(of_arm);
        if all > MAX_RUNS {
            let what = format!("its lists of values multiply to more than {MAX_RUNS} runs: shorten one of them");
            return Err(grid.error(what));
        }
    }
    Ok(())
}

/// The runs of one arm on one task.
fn of_arm(grid: &Grid, model: &Named, task: &Named, arm: &Named) -> Result<Vec<RunSpec>> {
    let mut keys = grid.base.clone();
    for part in [model, task, arm] {
        keys.extend(part.keys.clone());
    }
    let mut axes = grid.axes.clone();
    for axis in &mut axes {
        match keys.remove(axis.key.name) {
            Some(Value::Array(list)) if axis.key.is(Mark::Axis) => axis.values = list,
            Some(value) => axis.values = vec![value],
            None => {}
        }
    }
    let full = keys.get("finetuning_type").and_then(Value::as_str) == Some("full");
    if full {
        // full fine-tuning has no rank
        axes.iter_mut().filter(|a| a.key.name == "r").for_each(|a| a.values.truncate(1));
    }
    let score = keys.remove("score");
    let forgetting = forgetting(grid, keys.remove("forgetting_data"), keys.remove("forgetting_samples"))?;
    let mut out = Vec::new();
    for values in product(&axes) {
        let mut all = keys.clone();
        all.extend(values.iter().map(|(k, v)| (k.name.to_string(), (*v).clone())));
        let others = values.iter().filter(|(k, _)| !k.is(Mark::Axis));
        let others = others.map(|(k, v)| (k.name.to_string(), text(v))).collect();
        let names = (model.name.as_str(), task.name.as_str(), arm.name.as_str());
        let context = |e: loram_train::Error| grid.error(format!("{} on {} with {}: {e}", names.2, names.1, names.0));
        let spec = one(grid, all, names, others, score.as_ref(), forgetting.clone()).map_err(|e| match e {
            Error::Train(e) => context(e),
            other => other,
        })?;
        if let Some(halving) = grid.halving {
            out.extend(
                (0..halving.rounds).filter_map(|k| short(grid, &spec, k).transpose()).collect::<Result<Vec<_>>>()?,
            );
        }
        out.push(spec);
    }
    Ok(out)
}

fn one(
    grid: &Grid,
    mut keys: Map<String, Value>,
    (model, task, arm): (&str, &str, &str),
    others: BTreeMap<String, String>,
    score: Option<&Value>,
    forgetting: Option<Forgetting>,
) -> Result<RunSpec> {
    defaults(&mut keys);
    let file = Layer::new(Origin::File(grid.path.clone()), keys);
    let mut config = TrainConfig::layered(&[file])?;
    let split = Split::new(&grid.output_dir, task, &config, &grid.split).map_err(|e| grid.error(e.to_string()))?;
    config.train_data.clone_from(&split.train);
    config.eval_data = vec![split.selection.display().to_string()];
    config.check()?;
    let full = config.finetuning_type == FinetuningType::Full;
    let point = Point {
        model: model.into(),
        task: task.into(),
        arm: arm.into(),
        r: (!full).then_some(config.r as u64),
        learning_rate: config.learning_rate,
        seed: config.seed,
        others,
        rung: None,
    };
    config.output_dir = grid.run_dir(&point.id());
    // resume from a checkpoint if there is one, else overwrite what an interrupted run left
    config.set("resume_from_checkpoint", "auto")?;
    config.set("overwrite_output_dir", true)?;
    let score = score_of(grid, score, &config)?;
    Ok(RunSpec { point, config, split, score, forgetting })
}

/// Defaults of a comparison: ten evaluations over a run, few checkpoints.
fn defaults(keys: &mut Map<String, Value>) {
    let steps = keys.get("max_steps").and_then(Value::as_u64);
    let has = |keys: &Map<String, Value>, list: &[&str]| list.iter().any(|k| keys.contains_key(*k));
    if let Some(steps) = steps {
        if !has(keys, &["eval_strategy", "eval_steps"]) {
            keys.insert("eval_steps".into(), json!((steps / 10).max(1)));
        }
        if !has(keys, &["save_strategy", "save_steps", "load_best_model_at_end"]) {
            keys.insert("save_steps".into(), json!(steps.div_ceil(2)));
        }
    }
    keys.entry("save_total_limit").or_insert(json!(1));
}

/// The same run with fewer steps, for round `rung` of halving; `None` for all seeds but the first.
fn short(grid: &Grid, full: &RunSpec, rung: usize) -> Result<Option<RunSpec>> {
    let Some(halving) = grid.halving else { return Ok(None) };
    let Some(steps) = full.config.max_steps else {
        return Err(grid.error("halving needs max_steps, which short runs divide"));
    };
    let first = grid.axes.iter().find(|a| a.key.name == "seed").and_then(|a| a.values.first()).and_then(Value::as_u64);
    if first != Some(full.config.seed) {
        return Ok(None);
    }
    let mut spec = full.clone();
    let fewer = halving.factor.checked_pow((halving.rounds - rung) as u32).map_or(0, |all| steps / all);
    if fewer == 0 {
        return Err(grid.error(format!("halving: {steps} steps are too few for {} rounds", halving.rounds)));
    }
    spec.point.rung = Some(rung);
    spec.config.max_steps = Some(fewer);
    spec.config.eval_steps = spec.config.eval_steps.map(|_| fewer);
    spec.config.save_steps = spec.config.save_steps.map(|_| fewer);
    spec.config.output_dir = grid.run_dir(&spec.id());
    Ok(Some(spec))
}

fn score_of(grid: &Grid, value: Option<&Value>, config: &TrainConfig) -> Result<Score> {
    let name = match value {
        None => config.best_metric().to_string(),
        Some(Value::String(s)) => s.strip_prefix("eval_").unwrap_or(s).to_string(),
        Some(other) => return Err(grid.error(format!("score: found {other}, expected the name of a metric"))),
    };
    let known = metrics();
    let Some(metric) = known.iter().find(|m| m.name == name) else {
        let all: Vec<&str> = known.iter().map(|m| m.name).collect();
        return Err(grid.error(format!("score: found `{name}`, expected one of {}", all.join(", "))));
    };
    Ok(Score { more_is_better: metric.higher_is_better, name })
}

fn forgetting(grid: &Grid, data: Option<Value>, samples: Option<Value>) -> Result<Option<Forgetting>> {
    let data = match data {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(s)) => vec![s],
        Some(Value::Array(list)) if list.iter().all(Value::is_string) => list.iter().map(text).collect(),
        Some(other) => return Err(grid.error(format!("forgetting_data: found {other}, expected files"))),
    };
    let samples = match samples {
        None => None,
        Some(v) => match v.as_u64().filter(|n| *n > 0) {
            Some(n) => Some(n as usize),
            None => return Err(grid.error(format!("forgetting_samples: found {v}, expected a number, 1 or more"))),
        },
    };
    if let Some(missing) = data.iter().find(|d| !d.starts_with("demo:") && !std::path::Path::new(d).exists()) {
        return Err(grid.error(format!("forgetting_data: no such file `{missing}`")));
    }
    Ok(Some(Forgetting { data, samples }))
}

/// Every combination, the first axis slowest.
fn product(axes: &[Axis]) -> Vec<Vec<(&'static Key, &Value)>> {
    let mut out: Vec<Vec<(&Key, &Value)>> = vec![Vec::new()];
    for axis in axes {
        let heads = std::mem::take(&mut out);
        for head in heads {
            out.extend(axis.values.iter().map(|v| [&head[..], &[(axis.key, v)]].concat()));
        }
    }
    out
}

/// A value without quotes.
fn text(v: &Value) -> String {
    v.as_str().map_or_else(|| v.to_string(), str::to_string)
}
