//! The folder of a run: what it holds, whether it fits its configuration, what is removed in the end.

use crate::grid::{Keep, RunSpec};
use crate::{Error, Result};
use loram_io::disk;
use loram_train::checkpoint;
use loram_train::run_folder::differences;
use std::path::{Path, PathBuf};

/// Folder for files of a grid that belong to no run folder: locks, logs, costs, gain curves.
pub fn state_dir(output: &Path) -> PathBuf {
    output.join("state")
}

/// The lock of the process that makes a run.
pub fn lock_file(output: &Path, id: &str) -> PathBuf {
    state_dir(output).join(format!("{id}.lock"))
}

/// True if the run has been trained to its end.
pub fn trained(dir: &Path) -> bool {
    let text = loram_io::input::read_text(dir.join("summary.json")).unwrap_or_default();
    let status = serde_json::from_str::<serde_json::Value>(&text).ok();
    status.is_some_and(|s| s["status"] != "interrupted") && result_dir(dir).exists()
}

/// The adapter, or the model in full fine-tuning.
pub fn result_dir(dir: &Path) -> PathBuf {
    match dir.join("adapter") {
        adapter if adapter.exists() => adapter,
        _ => dir.join("model"),
    }
}

/// Fails if the folder holds a run with another configuration.
pub fn check_same(spec: &RunSpec, dir: &Path) -> Result<()> {
    let changed = differences(&spec.config, dir)?.unwrap_or_default();
    match changed.is_empty() {
        true => Ok(()),
        false => Err(Error::folder(
            dir,
            format!(
                "the run in this folder has another configuration: {}; give the grid another output_dir, or remove the folder",
                changed.join(", ")
            ),
        )),
    }
}

/// Removes the parts of a scored run that are not kept.
pub fn tidy(dir: &Path, keep: Keep) -> Result<()> {
    let mut removed: Vec<PathBuf> = Vec::new();
    if keep != Keep::Everything {
        removed.extend(checkpoint::checkpoints(dir).into_values());
        removed.push(dir.join("model"));
    }
    if keep == Keep::Figures {
        removed.push(dir.join("adapter"));
    }
    for path in removed.into_iter().filter(|p| p.exists()) {
        disk::remove_dir(&path)?;
    }
    Ok(())
}

/// Bytes of all files below a folder.
pub fn folder_bytes(dir: &Path) -> u64 {
    let size = |e: std::fs::DirEntry| match e.metadata() {
        Ok(m) if m.is_dir() => folder_bytes(&e.path()),
        Ok(m) => m.len(),
        Err(_) => 0,
    };
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(size).sum()
}
