//! One run of a grid: training, scores on both parts of the held-out data, forgetting, cost.

use crate::examples::Examples;
use crate::grid::{Forgetting, Keep, RunSpec, file_name};
use crate::scores::{Cost, ForgettingFigures, Outcome, SCORES, Scores};
use crate::{Error, Result};
use loram_io::atomic;
use loram_train::config::{Key, Mark};
use loram_train::dataset::DataOptions;
use loram_train::observer::{Event, Observer, Stage};
use loram_train::{
    EvalOptions, Layer, Metrics, Session, SessionOptions, Status, StopFlag, TrainConfig, Trainer, checkpoint, evaluate,
    read_dataset,
};
use serde::{Deserialize, Serialize};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How a call of [`run`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// The scores are written now.
    Scored,
    /// They were there before.
    Before,
    /// The stop flag was set; the run goes on from its checkpoint another time.
    Interrupted,
    /// Another program is at this run.
    Busy,
}

/// Cost of the start, which only the first sitting of a run sees: kept beside the run folders until it is scored.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct FirstSitting {
    start_seconds: f64,
}

/// Folder for what belongs to a grid and not to a single run.
fn aside(output: &Path) -> PathBuf {
    output.join("state")
}

/// Makes a run, or what is left of it. Errors leave its folder as it is, to be gone on with.
pub fn run(spec: &RunSpec, output: &Path, keep: Keep, stop: &StopFlag, observer: &mut dyn Observer) -> Result<Done> {
    let dir = spec.config.output_dir.clone();
    // two drivers may work on one folder: the lock goes away with the process
    let Some(_lock) = lock(output, &spec.id())? else { return Ok(Done::Busy) };
    if let Some(old) = Scores::read(&dir)? {
        check_same(spec, &dir)?;
        debug_assert_eq!(old.point, spec.point);
        return Ok(Done::Before);
    }
    spec.split.prepare()?;
    let before = spec.forgetting.as_ref().map(|f| base_loss(spec, f, output, observer)).transpose()?;
    if !trained(&dir) {
        check_same(spec, &dir)?;
        remove_unfinished_files(&dir)?;
        match train(spec, output, stop, observer) {
            Ok(Status::Interrupted) => return Ok(Done::Interrupted),
            Ok(_) => {}
            Err(Error::Train(e @ loram_train::Error::NotFinite { .. })) => {
                let cost = cost(spec, output, None)?;
                write(spec, Scores { outcome: Outcome::Diverged, error: Some(e.to_string()), ..empty(spec, cost) })?;
                tidy(&dir, keep)?;
                return Ok(Done::Scored);
            }
            Err(e) => return Err(e),
        }
    }
    let begun = Instant::now();
    let cost = cost(spec, output, Some(&result_dir(&dir)))?;
    let mut scores = score(spec, cost, before, observer)?;
    scores.cost.score_seconds = begun.elapsed().as_secs_f64();
    write(spec, scores)?;
    tidy(&dir, keep)?;
    Ok(Done::Scored)
}

fn lock(output: &Path, id: &str) -> Result<Option<File>> {
    let dir = aside(output);
    std::fs::create_dir_all(&dir).map_err(|e| loram_io::Error::io("create", &dir, e))?;
    let path = dir.join(format!("{id}.lock"));
    let file = File::create(&path).map_err(|e| loram_io::Error::io("create", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(loram_io::Error::io("lock", &path, e).into()),
    }
}

/// Whether `summary.json` is that of a run that came to its end.
fn trained(dir: &Path) -> bool {
    let text = std::fs::read_to_string(dir.join("summary.json")).unwrap_or_default();
    let status = serde_json::from_str::<serde_json::Value>(&text).ok();
    status.is_some_and(|s| s["status"] != "interrupted") && result_dir(dir).exists()
}

/// What a killed process was about to write.
fn remove_unfinished_files(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') && name.contains(".tmp-") {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|e| loram_io::Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

fn result_dir(dir: &Path) -> PathBuf {
    match dir.join("adapter") {
        adapter if adapter.exists() => adapter,
        _ => dir.join("model"),
    }
}

/// A folder that holds this run must hold it with the same configuration.
pub fn check_same(spec: &RunSpec, dir: &Path) -> Result<()> {
    let path = dir.join("config.yaml");
    if !path.exists() {
        return Ok(());
    }
    let saved = TrainConfig::layered(&[Layer::from_file(&path)?])?;
    let compared = |k: &Key| !k.is(Mark::Folder) && !k.is(Mark::Cosmetic);
    let (then, now) = (saved.values_of(compared), spec.config.values_of(compared));
    let differing = now.iter().filter(|(k, value)| then[*k] != **value);
    let changed: Vec<String> = differing.map(|(k, now)| format!("{k} ({} there, {now} now)", then[k])).collect();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Error::folder(
            dir,
            format!(
                "this run was made with another configuration: {}; give the grid another output_dir, or remove the folder",
                changed.join(", ")
            ),
        )),
    }
}

fn train(spec: &RunSpec, output: &Path, stop: &StopFlag, observer: &mut dyn Observer) -> Result<Status> {
    let trainer = Trainer::new(spec.config.clone())?;
    let flag = trainer.stop_flag();
    let mut watch = Watch { inner: observer, loaded: None, start_seconds: 0.0, asked: stop, stop: flag };
    let summary = trainer.run(&mut watch)?;
    let seconds = watch.start_seconds;
    let file = first_sitting(output, spec);
    if !file.exists() {
        atomic::write_json(&file, &FirstSitting { start_seconds: seconds })?;
    }
    Ok(summary.status)
}

fn first_sitting(output: &Path, spec: &RunSpec) -> PathBuf {
    aside(output).join(format!("{}.start.json", spec.id()))
}

/// Passes events on, measures how long the starts take, and hands the wish to stop over.
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

fn empty(spec: &RunSpec, cost: Cost) -> Scores {
    Scores {
        point: spec.point.clone(),
        score: spec.score.clone(),
        outcome: Outcome::Finished,
        error: None,
        selection: None,
        test: None,
        data: [&spec.split.selection, &spec.split.test].map(|p| p.display().to_string()).to_vec(),
        forgetting: None,
        cost,
        examples: None,
    }
}

/// Scores what was saved, as anybody would load it.
fn score(spec: &RunSpec, cost: Cost, before: Option<f64>, observer: &mut dyn Observer) -> Result<Scores> {
    let result = result_dir(&spec.config.output_dir);
    let path = result.display().to_string();
    let options = match result.ends_with("adapter") {
        true => SessionOptions {
            model: spec.config.model_name_or_path.clone(),
            revision: spec.config.revision.clone(),
            adapter: Some(path),
            task: spec.config.task,
            device: spec.config.device,
        },
        false => SessionOptions {
            model: path,
            task: spec.config.task,
            device: spec.config.device,
            ..SessionOptions::default()
        },
    };
    let session = Session::open(&options, observer)?;
    let how = EvalOptions { batch_size: spec.config.per_device_eval_batch_size, ..EvalOptions::default() };
    let selection = part(spec, &spec.split.selection);
    let (selection, _) = session.evaluate(&selection, how, observer)?;
    let test = part(spec, &spec.split.test);
    let known = Some((session.model.options().task, &session.labels[..]));
    let set = read_dataset(&session.base, &test, known, observer)?;
    let test = evaluate(&session.model, &set.examples, how, &mut |_, _| {})?;
    let examples = Examples::of(&session.model, &set.examples, how.batch_size)?;
    let names = Metrics::names(session.model.options().task);
    if !names.contains(&spec.score.name.as_str()) {
        let what = format!("score: this task gives no `{}`; there are {}", spec.score.name, names.join(", "));
        return Err(Error::Usage(what));
    }
    let forgetting = match (&spec.forgetting, before) {
        (Some(f), Some(before)) => {
            let (m, _) = session.evaluate(&domain(spec, f), how, observer)?;
            Some(ForgettingFigures { data: f.data.clone(), before, after: m.loss })
        }
        _ => None,
    };
    let error = [&selection, &test].into_iter().find_map(|m| no_score(m, &spec.score.name));
    let scored = error.is_none();
    Ok(Scores {
        outcome: if scored { Outcome::Finished } else { Outcome::Diverged },
        error,
        selection: scored.then_some(selection),
        test: scored.then_some(test),
        forgetting: forgetting.filter(|f| f.after.is_finite()),
        examples: scored.then_some(examples),
        ..empty(spec, cost)
    })
}

/// Why an evaluation has no score, where it has none.
fn no_score(found: &Metrics, name: &str) -> Option<String> {
    match (found.loss.is_finite(), found.get(name).is_some_and(f64::is_finite)) {
        (false, _) => Some("the evaluation loss is not a number".into()),
        (true, false) => Some(format!("`{name}` is not defined: all predictions, or all labels, are equal")),
        (true, true) => None,
    }
}

/// A part of the held-out data, read as the run reads its evaluation data.
fn part(spec: &RunSpec, path: &Path) -> DataOptions {
    let mut options = DataOptions::evaluation(&spec.config);
    options.paths = vec![path.display().to_string()];
    options.max_samples = None;
    options
}

/// Text of the model's own domain: columns and formats of the task do not apply to it.
fn domain(spec: &RunSpec, f: &Forgetting) -> DataOptions {
    DataOptions {
        paths: f.data.clone(),
        max_samples: f.samples,
        max_length: spec.config.max_length,
        completion_only: true,
        ..DataOptions::default()
    }
}

/// Loss of the untouched base on its own domain: measured once for a model.
fn base_loss(spec: &RunSpec, f: &Forgetting, output: &Path, observer: &mut dyn Observer) -> Result<f64> {
    let limit = spec.config.max_length.map_or("own".to_string(), |n| n.to_string());
    let name = format!("{}-{}-{limit}-{}", spec.point.model, f.data.join("+"), f.samples.unwrap_or(0));
    let path = aside(output).join(format!("base-{}.json", file_name(&name)));
    if let Ok(text) = std::fs::read_to_string(&path) {
        return serde_json::from_str(&text).map_err(|e| Error::folder(&path, e.to_string()));
    }
    let options = SessionOptions {
        model: spec.config.model_name_or_path.clone(),
        revision: spec.config.revision.clone(),
        ..SessionOptions::default()
    };
    let session = Session::open(&options, observer)?;
    let how = EvalOptions { batch_size: spec.config.per_device_eval_batch_size, ..EvalOptions::default() };
    let (m, _) = session.evaluate(&domain(spec, f), how, observer)?;
    atomic::write_json(&path, &m.loss)?;
    Ok(m.loss)
}

/// What the run cost, from its files; a diverged run has no summary.
fn cost(spec: &RunSpec, output: &Path, result: Option<&Path>) -> Result<Cost> {
    let dir = &spec.config.output_dir;
    let read = |path: &Path| -> serde_json::Value {
        std::fs::read_to_string(path).ok().and_then(|t| serde_json::from_str(&t).ok()).unwrap_or_default()
    };
    let summary = read(&dir.join("summary.json"));
    let newest = checkpoint::checkpoints(dir).into_values().next_back();
    Ok(Cost {
        start_seconds: read(&first_sitting(output, spec))["start_seconds"].as_f64().unwrap_or(0.0),
        train_seconds: summary["seconds"].as_f64().unwrap_or(0.0),
        peak_rss: summary["peak_rss"].as_u64().unwrap_or(0),
        trainable_parameters: summary["trainable_parameters"].as_u64().unwrap_or(0),
        score_seconds: 0.0,
        result_bytes: result.map_or(0, folder_bytes),
        checkpoint_bytes: newest.as_deref().map_or(0, folder_bytes),
        threads: rayon::current_num_threads(),
    })
}

/// Bytes of all files under a folder.
fn folder_bytes(dir: &Path) -> u64 {
    let size = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => folder_bytes(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(size).sum()
}

fn write(spec: &RunSpec, scores: Scores) -> Result<()> {
    let mut text = serde_json::to_vec(&scores).map_err(|e| Error::Failed(format!("cannot write scores: {e}")))?;
    text.push(b'\n');
    Ok(atomic::write_bytes(spec.config.output_dir.join(SCORES), &text)?)
}

/// Removes what is not to be kept, now that the scores are written.
fn tidy(dir: &Path, keep: Keep) -> Result<()> {
    let mut gone: Vec<PathBuf> = Vec::new();
    if keep != Keep::Everything {
        gone.extend(checkpoint::checkpoints(dir).into_values());
        gone.push(dir.join("model"));
    }
    if keep == Keep::Figures {
        gone.push(dir.join("adapter"));
    }
    for path in gone.into_iter().filter(|p| p.exists()) {
        std::fs::remove_dir_all(&path).map_err(|e| loram_io::Error::io("remove", &path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_that_is_not_defined_is_no_score() {
        let found = |loss, pearson| Metrics { loss, pearson, ..Metrics::default() };
        assert_eq!(no_score(&found(2.0, Some(0.5)), "pearson"), None);
        assert!(no_score(&found(2.0, None), "pearson").unwrap().contains("all predictions, or all labels, are equal"));
        assert!(no_score(&found(f64::NAN, Some(0.5)), "pearson").unwrap().contains("loss is not a number"));
    }
}
