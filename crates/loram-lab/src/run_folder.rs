//! The folder of a run: what it holds, whether it fits its configuration, what is removed in the end.

use crate::grid::{Keep, RunSpec};
use crate::{Error, Result};
use loram_train::config::{Key, Mark};
use loram_train::{Layer, TrainConfig, checkpoint};
use std::path::{Path, PathBuf};

/// Folder for files of a grid that belong to no run folder: locks, logs, costs, gain curves.
pub fn state_dir(output: &Path) -> PathBuf {
    output.join("state")
}

/// True if the run has been trained to its end.
pub fn trained(dir: &Path) -> bool {
    let text = std::fs::read_to_string(dir.join("summary.json")).unwrap_or_default();
    let status = serde_json::from_str::<serde_json::Value>(&text).ok();
    status.is_some_and(|s| s["status"] != "interrupted") && result_dir(dir).exists()
}

/// Removes temporary files of a process that was killed.
pub fn remove_unfinished_files(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') && name.contains(".tmp-") {
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            removed.map_err(|e| loram_io::Error::io("remove", &path, e))?;
        }
    }
    Ok(())
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
        std::fs::remove_dir_all(&path).map_err(|e| loram_io::Error::io("remove", &path, e))?;
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
