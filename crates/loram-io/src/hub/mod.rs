//! Resolves what a user types, a folder or a hub id like `org/name`, to a folder on this machine.
//!
//! Files go into the standard Hugging Face cache, so that a model downloaded by transformers is found here and the other
//! way round. With `HF_HUB_OFFLINE` set, or when the hub cannot be reached, a cached snapshot is used.

mod cache;
mod download;

use crate::{Error, Result};
use cache::Cached;
use download::Failure;
use std::path::{Path, PathBuf};

/// A step of a download, for a progress bar.
#[derive(Debug, Clone, Copy)]
pub struct Download<'a> {
    /// File in the repository.
    pub file: &'a str,
    /// Bytes downloaded, including those of an interrupted earlier download.
    pub done: u64,
    /// Size in bytes.
    pub total: u64,
}

/// Options of a lookup.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Branch, tag or commit; `None` means `main`.
    pub revision: Option<String>,
    /// Folder of the cache, the one with the `models--…` folders.
    pub cache_dir: PathBuf,
    /// Never use the network.
    pub offline: bool,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// Address of the hub.
    pub endpoint: String,
}

impl HubOptions {
    /// Options from `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_TOKEN` and `HF_ENDPOINT`,
    /// as huggingface_hub reads them.
    pub fn from_env() -> HubOptions {
        HubOptions::from_lookup(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from_lookup(env: &dyn Fn(&str) -> Option<String>) -> HubOptions {
        let on = |name| env(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        HubOptions {
            revision: None,
            cache_dir: cache::cache_dir(env),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            token: cache::token(env),
            endpoint: env("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()).trim_end_matches('/').to_string(),
        }
    }

    fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

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
    let cached = cache::find(opts, name);
    if let (Cached::Complete(folder), true) = (&cached, opts.offline || is_commit(opts.revision())) {
        return Ok(folder.clone());
    }
    let unreachable = if opts.offline {
        "HF_HUB_OFFLINE is set".to_string()
    } else {
        match download::snapshot(opts, name, progress) {
            Ok(folder) => return Ok(folder),
            Err(Failure::Refused(e)) => return Err(e),
            Err(Failure::Unreachable(why)) => format!("the hub at {} cannot be reached: {why}", opts.endpoint),
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
fn is_hub_id(name: &str) -> bool {
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

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_as_huggingface_hub_does() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            HubOptions::from_lookup(&move |n| pairs.iter().find(|p| p.0 == n).map(|p| p.1.to_string()))
        };
        assert_eq!(env(&[("HOME", "/h")]).cache_dir, Path::new("/h/.cache/huggingface/hub"));
        assert_eq!(env(&[("XDG_CACHE_HOME", "/x")]).cache_dir, Path::new("/x/huggingface/hub"));
        assert_eq!(env(&[("HF_HOME", "/f"), ("HOME", "/h")]).cache_dir, Path::new("/f/hub"));
        assert_eq!(env(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]).cache_dir, Path::new("/c"));
        assert!(env(&[("HF_HUB_OFFLINE", "1")]).offline && env(&[("TRANSFORMERS_OFFLINE", "yes")]).offline);
        assert!(!env(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(env(&[("HF_TOKEN", " hf_x\n")]).token.as_deref(), Some("hf_x"));
        assert_eq!(env(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }

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
