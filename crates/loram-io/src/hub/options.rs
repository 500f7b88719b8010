//! Where the hub and its cache are, from the environment.

use std::path::PathBuf;
use std::time::Duration;

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
    /// Longest wait for a connection, an answer, or more bytes of one.
    pub timeout: Duration,
}

/// The default of huggingface_hub.
const TIMEOUT: Duration = Duration::from_secs(10);

impl HubOptions {
    /// Options from `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, `TRANSFORMERS_OFFLINE`, `HF_TOKEN`, `HF_ENDPOINT`
    /// and `HF_HUB_DOWNLOAD_TIMEOUT`, as huggingface_hub reads them.
    pub fn from_env() -> HubOptions {
        HubOptions::from_lookup(&|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
    }

    fn from_lookup(env: &dyn Fn(&str) -> Option<String>) -> HubOptions {
        let on = |name| env(name).is_some_and(|v| ["1", "ON", "YES", "TRUE"].contains(&v.to_uppercase().as_str()));
        HubOptions {
            revision: None,
            cache_dir: cache_dir(env),
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            token: token(env),
            timeout: env("HF_HUB_DOWNLOAD_TIMEOUT")
                .and_then(|s| s.parse().ok())
                .filter(|&s| s > 0)
                .map_or(TIMEOUT, Duration::from_secs),
            endpoint: env("HF_ENDPOINT").unwrap_or("https://huggingface.co".into()).trim_end_matches('/').to_string(),
        }
    }

    /// The revision, `main` by default.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }
}

/// Folder of the hub cache from the environment: `HF_HUB_CACHE`, else `$HF_HOME/hub`, else
/// `$XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub`.
fn cache_dir(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"] {
        if let Some(dir) = env(name) {
            return dir.into();
        }
    }
    hf_home(env).join("hub")
}

fn hf_home(env: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    if let Some(home) = env("HF_HOME") {
        return home.into();
    }
    let cache = env("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(env("HOME").or_else(|| env("USERPROFILE"))?).join(".cache")));
    cache.unwrap_or_else(|| PathBuf::from(".cache")).join("huggingface")
}

/// `HF_TOKEN`, else the file that `hf auth login` writes.
fn token(env: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let direct = env("HF_TOKEN").or_else(|| env("HUGGING_FACE_HUB_TOKEN"));
    let file = || {
        let path = env("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| hf_home(env).join("token"));
        std::fs::read_to_string(path).ok()
    };
    direct.or_else(file).map(|t| t.trim().to_string()).filter(|t| !t.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_is_read_as_huggingface_hub_does() {
        let env = |pairs: &'static [(&'static str, &'static str)]| {
            HubOptions::from_lookup(&move |n| pairs.iter().find(|p| p.0 == n).map(|p| p.1.to_string()))
        };
        assert_eq!(env(&[("HOME", "/h")]).cache_dir, PathBuf::from("/h/.cache/huggingface/hub"));
        assert_eq!(env(&[("XDG_CACHE_HOME", "/x")]).cache_dir, PathBuf::from("/x/huggingface/hub"));
        assert_eq!(env(&[("HF_HOME", "/f"), ("HOME", "/h")]).cache_dir, PathBuf::from("/f/hub"));
        assert_eq!(env(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/f")]).cache_dir, PathBuf::from("/c"));
        assert!(env(&[("HF_HUB_OFFLINE", "1")]).offline && env(&[("TRANSFORMERS_OFFLINE", "yes")]).offline);
        assert!(!env(&[("HF_HUB_OFFLINE", "0")]).offline);
        assert_eq!(env(&[("HF_TOKEN", " hf_x\n")]).token.as_deref(), Some("hf_x"));
        assert_eq!(env(&[("HF_HUB_DOWNLOAD_TIMEOUT", "60")]).timeout, Duration::from_secs(60));
        assert_eq!(env(&[("HF_HUB_DOWNLOAD_TIMEOUT", "0")]).timeout, TIMEOUT);
        assert_eq!(env(&[("HF_ENDPOINT", "http://mirror/")]).endpoint, "http://mirror");
    }
}
