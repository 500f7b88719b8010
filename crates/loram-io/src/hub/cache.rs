//! The Hugging Face cache on this machine and its snapshots.

use super::options::HubOptions;
use super::repo::Repo;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// `models--org--name` in the cache.
pub(super) fn repo_dir(opts: &HubOptions, repo: Repo<'_>) -> PathBuf {
    opts.cache_dir.join(format!("{}--{}", repo.plural(), repo.id.replace('/', "--")))
}

/// The commit that a branch or tag had when it was last looked up, or the revision itself where it is a commit.
pub(super) fn noted(repo: &Path, revision: &str) -> Option<String> {
    let noted = std::fs::read_to_string(repo.join("refs").join(revision)).map(|c| c.trim().to_string());
    Some(noted.unwrap_or_else(|_| revision.to_string())).filter(|commit| is_commit(commit))
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
    let repo = repo_dir(opts, Repo::model(id));
    let snapshot = noted(&repo, opts.revision()).map(|commit| repo.join("snapshots").join(commit));
    let Some(snapshot) = snapshot.filter(|s| s.is_dir()) else { return Cached::Absent };
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

/// The name of a commit: 40 hexadecimal digits.
pub(super) fn is_commit(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Puts a file of the blobs into a snapshot, as a link, or as a copy where the file system has no links.
pub(super) fn link(repo: &Path, commit: &str, file: &str, blob: &str) -> Result<()> {
    let at = repo.join("snapshots").join(commit).join(file);
    let dir = at.parent().unwrap_or(repo);
    let io = |e| Error::io("create", &at, e);
    std::fs::create_dir_all(dir).map_err(io)?;
    let up: PathBuf = std::iter::repeat_n("..", 1 + file.split('/').count()).collect();
    let target = up.join("blobs").join(blob);
    #[cfg(unix)]
    if let Ok(link) = tempfile::Builder::new().make_in(dir, |temp| std::os::unix::fs::symlink(&target, temp)) {
        return link.persist(&at).map(drop).map_err(|e| io(e.error));
    }
    let mut copy = tempfile::NamedTempFile::new_in(dir).map_err(io)?;
    let mut source = std::fs::File::open(dir.join(&target)).map_err(io)?;
    std::io::copy(&mut source, &mut copy).map_err(io)?;
    copy.persist(&at).map(drop).map_err(|e| io(e.error))
}

/// Notes the commit of a branch or tag, which is how an offline lookup finds it.
pub(super) fn note(repo: &Path, revision: &str, commit: &str) -> Result<()> {
    let at = repo.join("refs").join(revision);
    if revision == commit || std::fs::read_to_string(&at).is_ok_and(|c| c.trim() == commit) {
        return Ok(());
    }
    crate::atomic::write_bytes(&at, commit.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_told_from_paths() {
        assert!(
            is_commit("0123456789abcdef0123456789abcdef01234567")
                && !is_commit("../../../../../../../../../../../../../a")
        );
    }
}
