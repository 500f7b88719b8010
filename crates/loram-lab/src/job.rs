//! Runs one run of a grid: training, scoring, cost.

use crate::grid::{Keep, RunSpec};
use crate::run_folder::{check_same, folder_bytes, lock_file, result_dir, state_dir, tidy, trained};
use crate::score_run::{base_loss, empty, score};
use crate::scores::{Cost, Outcome, SCORES, Scores};
use crate::{Error, Result};
use loram_io::lock::{Attempt, FileLock, Holder};
use loram_io::{atomic, disk};
use loram_train::observer::{Event, Observer, Stage};
use loram_train::{ProcessGroup, Status, StopFlag, Trainer, checkpoint};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a call of [`run`] ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Done {
    /// The scores have been written.
    Scored,
    /// The run had been scored before.
    Before,
    /// The stop flag was set; the next call resumes from the checkpoint.
    Interrupted,
    /// This process makes the run.
    Busy(Holder),
}

/// Cost of the initialisation, which a resumed run does not see: kept beside the run folders until the run is scored.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct InitCost {
    start_seconds: f64,
}

/// Trains and scores a run, or resumes it. After an error its folder remains as it is, and a later call resumes. In a group
/// of processes all ranks call this; rank 0 has the lock and writes.
pub fn run(
    spec: &RunSpec,
    output: &Path,
    keep: Keep,
    group: &ProcessGroup,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Done> {
    let dir = spec.config.output_dir.clone();
    // several drivers may work on one folder; the lock ends with the process
    let mut lock = None;
    let begun = by_first(group, || begin(spec, output, keep, &mut lock, observer))?;
    let (before, trained) = match begun {
        Begun::Ended(done) => return Ok(done),
        Begun::Open { before, trained } => (before, trained),
    };
    if !trained {
        match train(spec, output, group, stop, observer) {
            Ok(Status::Interrupted) => return Ok(Done::Interrupted),
            Ok(_) => {}
            Err(Error::Train(e)) if e.is_divergence() => {
                if group.is_first() {
                    let cost = cost(spec, output, None)?;
                    let error = Some(e.to_string());
                    write(spec, Scores { outcome: Outcome::Diverged, error, ..empty(spec, cost) })?;
                    tidy(&dir, keep)?;
                }
                return Ok(Done::Scored);
            }
            Err(e) => return Err(e),
        }
    }
    let begun = Instant::now();
    let cost = cost(spec, output, Some(&result_dir(&dir)))?;
    let scores = score(spec, cost, before, group, observer);
    let mut scores = if group.is_solo() { scores? } else { group.agree(scores.map_err(of_run))? };
    scores.cost.score_seconds = begun.elapsed().as_secs_f64();
    by_first(group, || {
        write(spec, scores)?;
        tidy(&dir, keep)?;
        Ok(Done::Scored)
    })
}

/// The state of a run before it is trained.
#[derive(Serialize, Deserialize)]
enum Begun {
    /// Everything, or another process makes it.
    Ended(Done),
    /// The loss of the base model on its own domain, and true if only the scores are missing.
    Open { before: Option<f64>, trained: bool },
}

/// Takes the lock, and looks at what is there.
fn begin(
    spec: &RunSpec,
    output: &Path,
    keep: Keep,
    lock: &mut Option<FileLock>,
    observer: &mut dyn Observer,
) -> Result<Begun> {
    let dir = &spec.config.output_dir;
    disk::create_dirs(&state_dir(output))?;
    match FileLock::take(&lock_file(output, &spec.id()))? {
        Attempt::Taken(taken) => *lock = Some(taken),
        Attempt::Busy(holder) => return Ok(Begun::Ended(Done::Busy(holder))),
    }
    disk::remove_unfinished(dir)?;
    if let Some(old) = Scores::read(dir)? {
        check_same(spec, dir)?;
        debug_assert_eq!(old.point, spec.point);
        // a process that was killed may have scored it and left the rest
        tidy(dir, keep)?;
        return Ok(Begun::Ended(Done::Before));
    }
    spec.split.prepare()?;
    let before = spec.forgetting.as_ref().map(|f| base_loss(spec, f, output, observer)).transpose()?;
    let trained = trained(dir);
    if !trained {
        check_same(spec, dir)?;
    }
    Ok(Begun::Open { before, trained })
}

/// Work of rank 0, with its outcome on all ranks.
fn by_first<T: Serialize + DeserializeOwned>(group: &ProcessGroup, work: impl FnOnce() -> Result<T>) -> Result<T> {
    match group.is_solo() {
        true => work(),
        false => Ok(group.from_first(|| work().map_err(of_run))?),
    }
}

/// An error as one that the ranks of a group can return.
fn of_run(e: Error) -> loram_train::Error {
    match e {
        Error::Train(e) => e,
        Error::Io(e) => e.into(),
        Error::Model(e) => e.into(),
        other => loram_train::Error::Config(other.to_string()),
    }
}

fn train(
    spec: &RunSpec,
    output: &Path,
    group: &ProcessGroup,
    stop: &StopFlag,
    observer: &mut dyn Observer,
) -> Result<Status> {
    let rates = state_dir(output).join("learning-rate");
    let trainer = Trainer::new(spec.config.clone())?.with_rate_cache(Some(rates)).in_group(group.clone());
    let flag = trainer.stop_flag();
    let mut watch = Watch { inner: observer, loaded: None, start_seconds: 0.0, asked: stop, stop: flag };
    let summary = trainer.run(&mut watch)?;
    let seconds = watch.start_seconds;
    let file = init_cost_file(output, spec);
    if group.is_first() && !file.exists() {
        atomic::write_json(&file, &InitCost { start_seconds: seconds })?;
    }
    Ok(summary.status)
}

fn init_cost_file(output: &Path, spec: &RunSpec) -> PathBuf {
    state_dir(output).join(format!("{}.start.json", spec.id()))
}

/// Passes events on, times the initialisation, and passes the stop flag on.
struct Watch<'a> {
    inner: &'a mut dyn Observer,
    loaded: Option<Instant>,
    start_seconds: f64,
    asked: &'a StopFlag,
    stop: StopFlag,
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: &Event) {
        match event {
            Event::Stage { stage: Stage::Model, done, total, .. } if done == total => {
                self.loaded = Some(Instant::now())
            }
            Event::Stage { stage: Stage::Initialization, .. } => {
                self.start_seconds = self.loaded.map_or(0.0, |t| t.elapsed().as_secs_f64());
            }
            _ => {}
        }
        if self.asked.is_set() {
            self.stop.stop();
        }
        self.inner.event(event);
    }
}

/// The cost of the run, from its files; a diverged run has no summary.
fn cost(spec: &RunSpec, output: &Path, result: Option<&Path>) -> Result<Cost> {
    let dir = &spec.config.output_dir;
    let read = |path: &Path| -> serde_json::Value {
        loram_io::input::read_text(path).ok().and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
    };
    let summary = read(&dir.join("summary.json"));
    let newest = checkpoint::checkpoints(dir).into_values().next_back();
    Ok(Cost {
        start_seconds: read(&init_cost_file(output, spec))["start_seconds"].as_f64().unwrap_or(0.0),
        train_seconds: summary["seconds"].as_f64().unwrap_or(0.0),
        peak_rss: summary["peak_rss"].as_u64().unwrap_or(0),
        trainable_parameters: summary["trainable_parameters"].as_u64().unwrap_or(0),
        score_seconds: 0.0,
        result_bytes: result.map_or(0, folder_bytes),
        checkpoint_bytes: newest.as_deref().map_or(0, folder_bytes),
        threads: rayon::current_num_threads(),
    })
}

fn write(spec: &RunSpec, scores: Scores) -> Result<()> {
    let mut text = serde_json::to_vec(&scores).map_err(|e| Error::Failed(format!("cannot write scores: {e}")))?;
    text.push(b'\n');
    Ok(atomic::write_bytes(spec.config.output_dir.join(SCORES), &text)?)
}
