//! The Hugging Face cache on this machine and its snapshots.

use super::options::HubOptions;
use std::path::{Path, PathBuf};

/// `models--org--name` in the cache.
pub(super) fn repo_dir(opts: &HubOptions, id: &str) -> PathBuf {
    opts.cache_dir.join(format!("models--{}", id.replace('/', "--")))
}

/// The state of a model at a revision in the cache.
pub(super) enum Cached {
    /// Everything that is needed.
    Complete(PathBuf),
    /// A snapshot in which this file is missing.
    Partial { missing: String },
    /// Nothing for this revision.
    Absent,
}

/// Looks a revision (branch, tag or commit) up.
pub(super) fn find(opts: &HubOptions, id: &str) -> Cached {
    let repo = repo_dir(opts, id);
    let revision = opts.revision();
    let commit = std::fs::read_to_string(repo.join("refs").join(revision)).map(|c| c.trim().to_string());
    let snapshot = repo.join("snapshots").join(commit.as_deref().unwrap_or(revision));
    if !snapshot.is_dir() {
        return Cached::Absent;
    }
    match missing_file(&snapshot) {
        None => Cached::Complete(snapshot),
        Some(missing) => Cached::Partial { missing },
    }
}

/// The first file that a model or adapter folder lacks to be usable.
pub(super) fn missing_file(dir: &Path) -> Option<String> {
    let has = |name: &str| dir.join(name).exists();
    if has("adapter_config.json") {
        return (!has("adapter_model.safetensors")).then(|| "adapter_model.safetensors".into());
    }
    if !has("config.json") {
        return Some("config.json".into());
    }
    if has("model.safetensors") {
        return None;
    }
    let Ok(index) = std::fs::read_to_string(dir.join("model.safetensors.index.json")) else {
        return Some("model.safetensors".into());
    };
    // a damaged index is reported when the checkpoint is opened
    let shards = crate::checkpoint::parse_index(&index).unwrap_or_default();
    shards.into_values().find(|s| !has(s))
}
