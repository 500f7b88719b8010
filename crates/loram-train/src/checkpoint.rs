//! Checkpoints: everything that is needed to resume a run as if it had never stopped.
//!
//! `checkpoint-<step>/` holds the native adapter with f32 factors (or all weights, in full fine-tuning), the optimiser's
//! state and `trainer_state.json`. The order of the data and the seeds of dropout follow from the configuration's seeds
//! and the counters in the state, so there is no other random state to keep.

use crate::adapt::{Adaptation, ExportInfo};
use crate::config::canonical;
use crate::health::Health;
use crate::metrics::Metrics;
use crate::observer::LogRecord;
use crate::optim::Optimizer;
use crate::rate::FoundRate;
use crate::summary::Sample;
use crate::{Error, Result};
use loram_io::adapter::AdapterForm;
use loram_io::atomic::{self, AtomicDir, Output};
use loram_io::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use loram_io::manifest::{self, MANIFEST};
use loram_io::{Checkpoint, DType, disk};
use loram_nn::{Model, Param};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// State of the loop.
pub const STATE: &str = "trainer_state.json";
/// State of the optimiser.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// All weights in f32, in full fine-tuning.
pub const WEIGHTS: &str = "weights.safetensors";

/// State of the training loop, as in `trainer_state.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    /// Optimiser steps done.
    pub global_step: usize,
    /// Total steps of the run.
    pub max_steps: usize,
    /// Finished epochs.
    pub epoch: usize,
    /// Batches of the current epoch that were used.
    pub batch_in_epoch: usize,
    /// Forward passes in total: seeds the dropout of the next one.
    pub batches: u64,
    /// Batches of an optimiser step, over all ranks; `None` in states of earlier versions: those of the configuration.
    #[serde(default)]
    pub batches_per_step: Option<usize>,
    /// Tokens of a forward pass at most, where the free memory decided (`auto_find_batch_size`).
    #[serde(default)]
    pub max_tokens_per_batch: Option<usize>,
    /// The peak learning rate and its origin; `None` in states of runs that gave a number.
    #[serde(default)]
    pub rate: Option<FoundRate>,
    /// Tokens trained on.
    pub tokens_seen: u64,
    /// Seconds of training, over all processes of the run.
    pub train_seconds: f64,
    /// Sums since the last line of metrics.
    pub window: Window,
    /// Σ of the loss over all steps' means, for the mean of the run.
    pub loss_of_steps: f64,
    /// Mean loss of the last step.
    #[serde(default)]
    pub last_loss: f64,
    /// Best value of the tracked metric.
    pub best_metric: Option<f64>,
    /// Step of the best evaluation.
    pub best_step: Option<usize>,
    /// Metrics of the best evaluation.
    pub best_metrics: Option<Metrics>,
    /// Metrics of the evaluation before training.
    pub first_metrics: Option<Metrics>,
    /// Step and metrics of the last evaluation.
    pub last_metrics: Option<(usize, Metrics)>,
    /// Evaluations in a row without improvement.
    pub patience: usize,
    /// All lines of `metrics.jsonl`, which a resumed run writes again.
    pub log_history: Vec<LogRecord>,
    /// Samples from before training.
    #[serde(default)]
    pub samples: Vec<Sample>,
    /// Figures that tell whether the run can still be saved.
    #[serde(default)]
    pub health: Health,
    /// Configuration keys that determine the result of the run.
    pub config: Map<String, Value>,
    /// Checksums of what the run reads.
    #[serde(default)]
    pub inputs: Inputs,
}

/// Checksums of what a run reads. A resumed run must read the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// The base model: its weights and `config.json`; `None` while it is being computed.
    pub base: Option<String>,
    /// The prepared training data.
    pub train_data: Option<String>,
    /// The prepared evaluation data; `None` where there are none.
    pub eval_data: Option<String>,
}

impl Inputs {
    /// The names of those that differ from `other`. What one of them does not have is not compared.
    fn changed(&self, other: &Inputs) -> Vec<&'static str> {
        let all = [
            ("the base model (weights or config.json)", &self.base, &other.base),
            ("the training data", &self.train_data, &other.train_data),
            ("the evaluation data", &self.eval_data, &other.eval_data),
        ];
        let differ = |(_, a, b): &(_, &Option<String>, &Option<String>)| a.is_some() && b.is_some() && a != b;
        all.into_iter().filter(differ).map(|x| x.0).collect()
    }
}

/// Sums over the steps since the last line of metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Σ loss.
    pub loss: f64,
    /// Counted tokens or examples.
    pub counted: u64,
    /// Correct predictions.
    pub correct: u64,
}

/// The folder of the checkpoint at a step.
pub fn checkpoint_dir(output: &Path, step: usize) -> PathBuf {
    output.join(format!("checkpoint-{step}"))
}

/// Checkpoints in a run folder, by step. A folder of that name which has nothing of ours is not one.
pub fn checkpoints(output: &Path) -> BTreeMap<usize, PathBuf> {
    let entries = std::fs::read_dir(output).into_iter().flatten().flatten();
    let step = |p: &Path| p.file_name()?.to_str()?.strip_prefix("checkpoint-")?.parse::<usize>().ok();
    let ours = |p: &PathBuf| p.join(MANIFEST).exists() || p.join(STATE).exists();
    entries.map(|e| e.path()).filter(ours).filter_map(|p| Some((step(&p)?, p))).collect()
}

/// Checks that all files of a checkpoint are as they were written. The error says what is wrong.
pub fn check(dir: &Path) -> std::result::Result<(), String> {
    match manifest::state(dir) {
        manifest::State::Whole(_) => read_state(dir).map(drop).map_err(|e| e.to_string()),
        manifest::State::Damaged(what) => Err(what),
        manifest::State::Unlisted if dir.join(STATE).exists() => Err(format!("{MANIFEST} is missing")),
        manifest::State::Unlisted => {
            Err(format!("no {STATE}: not a checkpoint of a run (they are called checkpoint-<step>)"))
        }
    }
}

/// The trained adapters; `None` when every weight is trained.
pub(crate) struct Trained<'a> {
    pub model: &'a Model,
    pub adaptation: Option<&'a Adaptation>,
    pub info: &'a ExportInfo,
}

/// Writes `checkpoint-<step>` and returns its path. The folder appears when it is complete.
pub(crate) fn save(
    output: &Path,
    trained: &Trained<'_>,
    optimizer: &Optimizer,
    state: &TrainerState,
) -> Result<PathBuf> {
    let target = checkpoint_dir(output, state.global_step);
    let new = AtomicDir::create(Output::new(&target, true))?;
    match trained.adaptation {
        Some(a) => a.export(trained.model, AdapterForm::Native, trained.info)?.write_files(new.path())?,
        None => {
            let tensor =
                |p: &Param| Ok((TensorSpec::new(&p.name, DType::F32, &p.shape), Cow::Owned(p.value.values()?)));
            let tensors = trained.model.params().iter().map(tensor).collect::<Result<_>>()?;
            write_safetensors(new.path().join(WEIGHTS), &pt_metadata(), tensors)?;
        }
    }
    let tensors = optimizer.state(trained.model.params().iter())?.into_iter();
    let tensors = tensors.map(|(name, shape, values)| (TensorSpec::new(name, DType::F32, &shape), Cow::Owned(values)));
    write_safetensors(new.path().join(OPTIMIZER), &pt_metadata(), tensors.collect())?;
    atomic::write_json(new.path().join(STATE), state)?;
    manifest::write(new.path())?;
    new.commit()?;
    Ok(target)
}

/// Reads the loop state of a checkpoint.
pub fn read_state(dir: &Path) -> Result<TrainerState> {
    let path = dir.join(STATE);
    let wrong = |what: String| Error::Checkpoint { path: dir.to_path_buf(), what };
    let text = loram_io::input::read_text_if_there(&path)?
        .ok_or_else(|| wrong(format!("no {STATE}: not a checkpoint of a run (they are called checkpoint-<step>)")))?;
    serde_json::from_str(&text).map_err(|e| wrong(format!("{STATE} cannot be read: {e}")))
}

/// Restores all weights of a full fine-tuning.
pub(crate) fn restore_weights(dir: &Path, model: &mut Model) -> Result<()> {
    let file = Checkpoint::open_file(dir.join(WEIGHTS))?;
    for p in model.params_mut().iter_mut() {
        let t = file.tensor(&p.name)?;
        if t.shape() != p.shape {
            let what = format!("`{}` has shape {:?}, the model {:?}", p.name, t.shape(), p.shape);
            return Err(Error::Checkpoint { path: dir.to_path_buf(), what });
        }
        p.value.set_values(&t.to_f32()?)?;
    }
    Ok(())
}

/// Restores the optimiser's state.
pub(crate) fn restore_optimizer(dir: &Path, model: &Model, optimizer: &mut Optimizer, steps: usize) -> Result<()> {
    let file = Checkpoint::open_file(dir.join(OPTIMIZER))?;
    let mut saved = BTreeMap::new();
    for name in file.names() {
        saved.insert(name.to_string(), file.tensor(name)?.to_f32()?);
    }
    optimizer.restore(model.params().iter(), steps as u64, &saved).map_err(|e| match e {
        Error::Data(what) => Error::Checkpoint { path: dir.to_path_buf(), what },
        other => other,
    })
}

/// Removes the oldest checkpoints beyond `limit`, but never the newest one or those of the steps `keep`.
pub(crate) fn prune(output: &Path, limit: usize, keep: &[Option<usize>]) -> Result<()> {
    let all = checkpoints(output);
    let Some((&newest, _)) = all.last_key_value() else { return Ok(()) };
    let mut surplus = all.len().saturating_sub(limit);
    for (step, path) in &all {
        if surplus == 0 {
            break;
        }
        if !keep.contains(&Some(*step)) && *step != newest {
            disk::remove_dir(path)?;
            surplus -= 1;
        }
    }
    Ok(())
}

/// Returns an error that names the keys or inputs in which a resumed run differs from the saved one. Inputs that may differ
/// (`allow_changed_inputs`) are returned.
pub(crate) fn check_same_run(
    dir: &Path,
    saved: &TrainerState,
    now: &TrainerState,
    allow_changed_inputs: bool,
) -> Result<Vec<&'static str>> {
    let wrong = |what: String| Err(Error::Checkpoint { path: dir.to_path_buf(), what });
    let differs = |(k, v): (&String, &Value)| {
        let old = canonical(k, saved.config.get(k)?);
        (old != *v).then(|| format!("{k} ({old} there, {v} now)"))
    };
    let changed: Vec<String> = now.config.iter().filter_map(differs).collect();
    if !changed.is_empty() {
        return wrong(format!(
            "this run is configured differently: {}; a resumed run must keep its settings",
            changed.join(", ")
        ));
    }
    if saved.max_steps != now.max_steps {
        return wrong(format!("the run was for {} steps, now it would be {}", saved.max_steps, now.max_steps));
    }
    let changed = saved.inputs.changed(&now.inputs);
    match changed.is_empty() || allow_changed_inputs {
        true => Ok(changed),
        false => wrong(format!(
            "{} changed since this run began: restore what it read then, or set allow_changed_inputs: true to go on with \
             what is there now",
            changed.join(" and ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_and_the_newest_stay() {
        let dir = tempfile::tempdir().unwrap();
        for step in [5, 10, 15, 20, 100] {
            let d = checkpoint_dir(dir.path(), step);
            std::fs::create_dir(&d).unwrap();
            std::fs::write(d.join(STATE), "{}").unwrap();
        }
        std::fs::create_dir(dir.path().join("checkpoint-7")).unwrap();
        let steps = || checkpoints(dir.path()).into_keys().collect::<Vec<_>>();
        assert_eq!(steps(), [5, 10, 15, 20, 100], "one with nothing of ours is not a checkpoint");
        prune(dir.path(), 3, &[Some(5), None]).unwrap();
        assert_eq!(steps(), [5, 20, 100]);
        prune(dir.path(), 1, &[None, Some(5)]).unwrap();
        assert_eq!(steps(), [5, 100]);
        prune(dir.path(), 1, &[]).unwrap();
        assert_eq!(steps(), [100]);
    }

    #[test]
    fn a_changed_run_is_named_by_its_keys() {
        let config = |lr: f64| serde_json::json!({"learning_rate": lr, "r": 8}).as_object().unwrap().clone();
        let inputs = Inputs { base: Some("w".into()), train_data: Some("a".into()), eval_data: None };
        let saved = TrainerState { config: config(1e-4), inputs: inputs.clone(), max_steps: 5, ..Default::default() };
        let now = TrainerState { config: config(2e-4), ..saved.clone() };
        let dir = Path::new("run/checkpoint-5");
        let e = check_same_run(dir, &saved, &now, false).unwrap_err().to_string();
        assert!(e.contains("learning_rate (0.0001 there, 0.0002 now)") && !e.contains("r ("), "{e}");
        for (word, other) in [
            ("base model", Inputs { base: Some("x".into()), ..inputs.clone() }),
            ("training data", Inputs { train_data: Some("b".into()), ..inputs.clone() }),
        ] {
            let now = TrainerState { inputs: other, ..saved.clone() };
            let e = check_same_run(dir, &saved, &now, false).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("allow_changed_inputs"), "{e}");
            assert!(check_same_run(dir, &saved, &now, true).unwrap()[0].contains(word));
        }
        let more = TrainerState { inputs: Inputs { eval_data: Some("e".into()), ..inputs }, ..saved.clone() };
        assert_eq!(check_same_run(dir, &saved, &more, false).unwrap(), [""; 0], "evaluation data may be added");
    }

    #[test]
    fn state_survives_exactly() {
        let state = TrainerState {
            window: Window { loss: 0.1 + 0.2, counted: 3, correct: 1 },
            train_seconds: 1.0 / 3.0,
            best_metric: Some(f64::MIN_POSITIVE),
            log_history: vec![LogRecord { step: 1, loss: Some(1.0 / 7.0), ..Default::default() }],
            samples: vec![Sample { when: "before".into(), prompt: "a".into(), text: "b".into(), reference: None }],
            ..Default::default()
        };
        let text = serde_json::to_string(&state).unwrap();
        assert_eq!(serde_json::from_str::<TrainerState>(&text).unwrap(), state);
        // an infinite perplexity must not make a checkpoint unreadable
        let eval = [("eval_perplexity".to_string(), f64::INFINITY)].into();
        let state = TrainerState { log_history: vec![LogRecord { eval, ..Default::default() }], ..state };
        let text = serde_json::to_string(&state).unwrap();
        assert!(serde_json::from_str::<TrainerState>(&text).unwrap().log_history[0].eval["eval_perplexity"].is_nan());
    }
}
