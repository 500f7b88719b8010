//! From what a user types to a folder on this machine.

use super::cache::{self, Cached, is_commit};
use super::client::Failure;
use super::download;
use super::options::{Download, HubOptions};
use crate::inside::is_inside;
use crate::{Error, Result};
use std::path::{Path, PathBuf};

/// The folder of a model or adapter: `name` itself when it exists, else the hub's snapshot of that id, downloaded when
/// needed. `progress` is called often during downloads.
///
/// Errors say what was tried: no such folder, not a hub id, not in the cache, hub out of reach, no access.
pub fn resolve(name: &str, revision: Option<&str>, progress: &mut dyn FnMut(&Download<'_>)) -> Result<PathBuf> {
    let options = HubOptions { revision: revision.map(str::to_string), ..HubOptions::from_env() };
    resolve_with(name, &options, progress)
}

/// [`resolve`] with explicit options.
pub fn resolve_with(name: &str, opts: &HubOptions, progress: &mut dyn FnMut(&Download<'_>)) -> Result<PathBuf> {
    let path = Path::new(name);
    if path.exists() {
        return Ok(path.to_path_buf());
    }
    if !is_hub_id(name) {
        let what = "no such file or folder (and it is not of the form `org/name` of a model on the hub)".into();
        return Err(Error::NotFound { path: path.into(), what });
    }
    if !is_inside(opts.revision()) {
        let what = format!("`{name}`: the revision {:?} is no name of a branch, a tag or a commit", opts.revision());
        return Err(Error::Usage(what));
    }
    let cached = cache::find(opts, name);
    if let (Cached::Complete(folder), true) = (&cached, opts.offline || is_commit(opts.revision())) {
        return Ok(folder.clone());
    }
    let unreachable = if opts.offline {
        "HF_HUB_OFFLINE is set".to_string()
    } else {
        match download::snapshot(opts, name, progress) {
            Ok(folder) => return Ok(folder),
            Err(Failure::Refused(e)) if !(matches!(cached, Cached::Complete(_)) && is_read_only(&e)) => return Err(e),
            Err(Failure::Refused(e)) => e.to_string(),
            Err(Failure::Unreachable { why, .. }) => format!("the hub at {} cannot be reached: {why}", opts.endpoint),
        }
    };
    let state = match cached {
        Cached::Complete(folder) => {
            tracing::warn!("{name}: {unreachable}; using the cached copy {}", folder.display());
            return Ok(folder);
        }
        Cached::Partial { missing } => format!("is incomplete there (`{missing}` is missing)"),
        Cached::Absent => "is not there".to_string(),
    };
    Err(Error::Hub {
        what: format!(
            "`{name}` (revision `{}`): there is no local folder of that name, as a hub id it was looked for in the cache \
             {} and {state}, and {unreachable}; give the path of a model folder, or run once with network access",
            opts.revision(),
            opts.cache_dir.display()
        ),
    })
}

/// `name` or `org/name` in the hub's alphabet; never anything that could be a path upwards.
pub(super) fn is_hub_id(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty()
            && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !p.starts_with(['-', '.'])
            && !p.ends_with(['-', '.'])
            && !p.contains("--")
            && !p.contains("..")
    };
    let mut parts = name.split('/');
    name.len() <= 96 && parts.next().is_some_and(part) && parts.next().is_none_or(part) && parts.next().is_none()
}

/// The cache belongs to somebody else: what is in it can be used all the same.
pub(super) fn is_read_only(e: &Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(e, Error::Io { cause, .. } if matches!(cause.kind(), PermissionDenied | ReadOnlyFilesystem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hub_ids_are_told_from_paths() {
        for yes in ["gpt2", "Qwen/Qwen2.5-0.5B", "google-bert/bert-base-uncased", "a/b_c"] {
            assert!(is_hub_id(yes), "{yes}");
        }
        for no in ["", "/models/x", "./x", "../x", "a/b/c", "a//b", "a/..", "~/m", "C:\\m", "a b", "a/b--c", "models/"]
        {
            assert!(!is_hub_id(no), "{no}");
        }
    }
}
