//! The folder of a run: who works in it, what earlier processes left there, and how this one goes on from it.

use crate::checkpoint::{self, checkpoints};
use crate::config::{FinetuningType, Key, Layer, Mark, Resume, TrainConfig};
use crate::report::{ENVIRONMENT, LOG, METRICS};
use crate::summary::{SUMMARY, Status, Summary};
use crate::{Error, Result};
use loram_io::adapter::ADAPTER_CONFIG;
use loram_io::lock::{Attempt, FileLock};
use loram_io::{disk, manifest};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The configuration of the run, with all defaults.
pub const CONFIG: &str = "config.yaml";
/// The lock of the process that works in the folder.
pub const LOCK: &str = "run.lock";

/// Files that a run writes before it has anything to lose.
const EARLY: [&str; 6] = [CONFIG, ENVIRONMENT, METRICS, LOG, SUMMARY, LOCK];

/// How a process goes on from what it finds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Begin {
    /// From step 0.
    Anew,
    /// From this checkpoint.
    Resume(PathBuf),
    /// Not at all: the run has ended.
    Ended(Box<Summary>),
}

/// A run folder that this process works in. Dropped, it is free for others.
#[derive(Debug)]
pub(crate) struct RunFolder {
    lock: Option<FileLock>,
    /// Folders that did not exist before.
    created: Vec<PathBuf>,
    pub begin: Begin,
    /// Notes on the folder for the user.
    pub notes: Vec<String>,
}

impl RunFolder {
    /// Locks the folder and looks at what is in it. Errors: another process works there; it holds something else; no
    /// checkpoint in it is whole.
    pub fn open(config: &TrainConfig) -> Result<RunFolder> {
        let dir = &config.output_dir;
        refuse_file(dir)?;
        let created = disk::create_dirs(dir)?;
        let mut folder = RunFolder { lock: None, created, begin: Begin::Anew, notes: Vec::new() };
        match FileLock::take(&dir.join(LOCK)) {
            Ok(Attempt::Taken(lock)) => folder.lock = Some(lock),
            Ok(Attempt::Busy(holder)) => return Err(loram_io::Error::Locked { path: dir.clone(), holder }.into()),
            Err(e) => {
                // a folder that cannot be written to may hold a run that has ended
                folder.begin = begin(config, &mut folder.notes, false)?;
                return if matches!(folder.begin, Begin::Ended(_)) { Ok(folder) } else { Err(e.into()) };
            }
        }
        disk::remove_unfinished(dir)?;
        folder.begin = begin(config, &mut folder.notes, true)?;
        Ok(folder)
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        self.lock = None;
        for dir in self.created.iter().rev() {
            disk::remove_empty(dir);
        }
    }
}

/// Returns how a run with this configuration would begin, without a change to the folder.
pub(crate) fn look(config: &TrainConfig) -> Result<(Begin, Vec<String>)> {
    refuse_file(&config.output_dir)?;
    let mut notes = Vec::new();
    Ok((begin(config, &mut notes, false)?, notes))
}

/// The message of a repeated command of a run that has ended.
pub(crate) fn ended_text(config: &TrainConfig) -> String {
    format!(
        "the run in {} has ended: nothing to do (overwrite_output_dir: true trains it again)",
        config.output_dir.display()
    )
}

fn refuse_file(dir: &Path) -> Result<()> {
    match dir.is_file() {
        true => Err(Error::Config(format!("output_dir `{}` is a file", dir.display()))),
        false => Ok(()),
    }
}

fn begin(config: &TrainConfig, notes: &mut Vec<String>, locked: bool) -> Result<Begin> {
    let anew = config.resume_from_checkpoint == Resume::No && config.overwrite_output_dir;
    if let Resume::From(path) = &config.resume_from_checkpoint {
        let wrong = |what| Error::Checkpoint { path: path.clone(), what };
        checkpoint::check(path).map_err(wrong)?;
        // a checkpoint of another folder must not put its run in the place of the one here
        if !is_in(path, &config.output_dir) && !differences(config, &config.output_dir)?.is_some_and(|d| d.is_empty()) {
            check_output(config)?;
        }
        return Ok(Begin::Resume(path.clone()));
    }
    if !anew && let Some(summary) = ended(config, notes)? {
        return Ok(Begin::Ended(Box::new(summary)));
    }
    if config.resume_from_checkpoint == Resume::Latest
        && let Some(dir) = newest_whole(&config.output_dir, notes, locked)?
    {
        return Ok(Begin::Resume(dir));
    }
    check_output(config)?;
    Ok(Begin::Anew)
}

fn is_in(path: &Path, dir: &Path) -> bool {
    matches!((path.canonicalize(), dir.canonicalize()), (Ok(path), Ok(dir)) if path.parent() == Some(&dir))
}

/// The summary of a run that has ended in this folder, with the same configuration. An error names the keys that differ.
fn ended(config: &TrainConfig, notes: &mut Vec<String>) -> Result<Option<Summary>> {
    let dir = &config.output_dir;
    let text = loram_io::input::read_text(dir.join(SUMMARY)).unwrap_or_default();
    let Ok(summary) = serde_json::from_str::<Summary>(&text) else { return Ok(None) };
    let result = match config.finetuning_type {
        FinetuningType::Lora => dir.join("adapter"),
        FinetuningType::Full => dir.join("model"),
    };
    if summary.status == Status::Interrupted || !result.exists() {
        return Ok(None);
    }
    match differences(config, dir)? {
        None => return Ok(None),
        Some(list) if list.is_empty() => {}
        Some(list) if config.resume_from_checkpoint == Resume::Latest => {
            let what = format!(
                "the run in this folder has ended, and was configured differently: {}; give another output_dir, or train \
                 its result further in a new run: --adapter {} -o ANOTHER_FOLDER",
                list.join(", "),
                result.display()
            );
            return Err(Error::Checkpoint { path: dir.clone(), what });
        }
        Some(_) => return Ok(None),
    }
    if let manifest::State::Damaged(what) = manifest::state(&result) {
        notes.push(format!("{} is damaged and is made again: {what}", result.display()));
        return Ok(None);
    }
    Ok(Some(summary))
}

/// True if `config.yaml` of a run folder has these settings, whatever they say of the folder itself.
pub(crate) fn holds_settings(dir: &Path, config: &TrainConfig) -> bool {
    let settings = |c: &TrainConfig| c.values_of(|k| !k.is(Mark::Folder));
    let saved = Layer::from_file(dir.join(CONFIG)).and_then(|l| TrainConfig::layered(&[l]));
    saved.is_ok_and(|saved| settings(&saved) == settings(config))
}

/// Keys, with both values, in which a configuration differs from that of the run in a folder; `None` where there is no
/// run. Keys that no figure depends on do not count.
pub fn differences(config: &TrainConfig, dir: &Path) -> Result<Option<Vec<String>>> {
    let path = dir.join(CONFIG);
    if !path.exists() {
        return Ok(None);
    }
    let saved = TrainConfig::layered(&[Layer::from_file(&path)?])?;
    let compared = |k: &Key| !k.is(Mark::Folder) && !k.is(Mark::Cosmetic);
    let (then, now) = (saved.values_of(compared), config.values_of(compared));
    let differing = now.iter().filter(|(k, value)| then.get(*k) != Some(*value));
    let text = |value: Option<&serde_json::Value>| value.map_or("nothing".into(), |v| v.to_string());
    Ok(Some(differing.map(|(k, now)| format!("{k} ({} there, {now} now)", text(then.get(k)))).collect()))
}

/// The newest checkpoint whose files are as they were written. Damaged ones are kept under another name, if the folder is
/// ours to change. An error when all are damaged.
fn newest_whole(output: &Path, notes: &mut Vec<String>, locked: bool) -> Result<Option<PathBuf>> {
    let mut damaged = 0;
    for path in checkpoints(output).into_values().rev() {
        let Err(what) = checkpoint::check(&path) else { return Ok(Some(path)) };
        damaged += 1;
        let kept = if locked { set_aside(&path)? } else { path.clone() };
        notes.push(format!("{} is damaged and not used: {what}; it is kept as {}", path.display(), kept.display()));
    }
    match damaged {
        0 => Ok(None),
        n => Err(Error::Checkpoint {
            path: output.to_path_buf(),
            what: format!(
                "no checkpoint is whole ({n} damaged): {}; to begin anew, remove the folder or give another output_dir",
                notes.join("; ")
            ),
        }),
    }
}

/// Gives a damaged checkpoint a name that is not that of a checkpoint.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let name = |i: usize| {
        let suffix = if i == 1 { ".damaged".into() } else { format!(".damaged-{i}") };
        path.with_file_name(format!("{}{suffix}", path.file_name().unwrap_or_default().to_string_lossy()))
    };
    let free = (1..).map(name).find(|p| !p.exists()).expect("a free name");
    disk::rename(path, &free)?;
    Ok(free)
}

/// True for names of what a run leaves when it is killed before its first checkpoint.
fn is_early(name: &str) -> bool {
    EARLY.contains(&name) || name.starts_with("events.out.tfevents.")
}

/// A run that begins at step 0 needs a folder that is empty, or holds nothing that the same run would not make again.
fn check_output(config: &TrainConfig) -> Result<()> {
    let dir = &config.output_dir;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let rest: Vec<String> = entries
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .filter(|n| !is_early(n) && !disk::is_unfinished(n))
        .collect();
    if rest.is_empty() || config.overwrite_output_dir {
        return Ok(());
    }
    // killed between its result and its summary, without a checkpoint: the same configuration gives the same bits
    let result = |n: &String| n == "model" || (n == "adapter" && dir.join("adapter").join(ADAPTER_CONFIG).exists());
    let no_summary = !dir.join(SUMMARY).exists();
    if rest.iter().all(result) && no_summary && differences(config, dir)?.is_some_and(|d| d.is_empty()) {
        return Ok(());
    }
    Err(Error::OutputExists { path: dir.clone() })
}

/// Removes what an earlier run left in a folder that is written anew. Files that no run writes stay.
pub(crate) fn clear(dir: &Path) -> Result<()> {
    // first, so that the rest is never taken for a run that has ended
    disk::remove_file(&dir.join(SUMMARY))?;
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let number = name.strip_prefix("checkpoint-").map(|n| n.split('.').next().unwrap_or(n));
        if number.is_some_and(|n| n.parse::<usize>().is_ok()) || ["adapter", "model"].contains(&name.as_str()) {
            disk::remove_dir(&path)?;
        } else if is_early(&name) && name != LOCK {
            disk::remove_file(&path)?;
        }
    }
    Ok(())
}
