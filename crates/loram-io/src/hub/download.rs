//! Fetching the files of a model that are needed, into the standard cache.

use super::cache;
use super::options::{Download, HubOptions};
use crate::Error;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Why a download failed: the caller falls back to the cache only when the hub could not be reached.
pub(super) enum Failure {
    Unreachable(String),
    Refused(Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Failure::Refused(e)
    }
}

const INDEX: &str = crate::checkpoint::INDEX_FILE;

/// Makes the snapshot of the revision complete and returns its folder.
pub(super) fn snapshot(
    opts: &HubOptions,
    id: &str,
    progress: &mut dyn FnMut(&Download<'_>),
) -> std::result::Result<PathBuf, Failure> {
    let cache_dir = std::path::absolute(&opts.cache_dir).map_err(|e| Error::io("read", &opts.cache_dir, e))?;
    let hub_cache = Cache::new(cache_dir);
    let api = ApiBuilder::from_cache(hub_cache.clone())
        .with_endpoint(opts.endpoint.clone())
        .with_token(opts.token.clone())
        .with_progress(false)
        .with_retries(3)
        .build()
        .map_err(|e| failure(opts, id, &e))?;
    let named = Repo::with_revision(id.to_string(), RepoType::Model, opts.revision().to_string());
    let (commit, sizes) = list(&api.repo(named.clone())).map_err(|e| failure(opts, id, &e))?;

    // files are fetched at the commit, so that a push meanwhile cannot mix two versions
    let pinned = Repo::with_revision(id.to_string(), RepoType::Model, commit.clone());
    let repo = api.repo(pinned.clone());
    let folder = hub_cache.repo(pinned).pointer_path(&commit);
    let mut fetch = |names: &[String]| -> std::result::Result<(), Failure> {
        let wanted: Vec<&String> = names.iter().filter(|n| !folder.join(n).exists()).collect();
        crate::atomic::ensure_space(&opts.cache_dir, wanted.iter().filter_map(|n| sizes.get(*n)).sum())?;
        for name in wanted {
            let path = {
                let bar = Bar { file: name, done: 0, total: 0, report: progress };
                repo.download_with_progress(name, bar).map_err(|e| failure(opts, id, &e))?
            };
            let found = std::fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
            if let Some(&expected) = sizes.get(name).filter(|&&s| s != 0 && s != found) {
                // the blob must go too, or the next run would take it for complete
                let _ = path.canonicalize().map(std::fs::remove_file);
                let _ = std::fs::remove_file(&path);
                let what = format!("{id}: `{name}` arrived with {found} of {expected} bytes; run the command again");
                return Err(Error::Hub { what }.into());
            }
        }
        Ok(())
    };

    let names: Vec<&str> = sizes.keys().map(String::as_str).collect();
    fetch(&small_files(&names))?;
    let weights = if names.contains(&"adapter_config.json") {
        vec!["adapter_model.safetensors".to_string()]
    } else if names.contains(&"model.safetensors") {
        vec!["model.safetensors".to_string()]
    } else if names.contains(&INDEX) {
        fetch(&[INDEX.to_string()])?;
        let path = folder.join(INDEX);
        let text = std::fs::read_to_string(&path).map_err(|e| Error::io("read", &path, e))?;
        let map = crate::checkpoint::parse_index(&text).map_err(|problem| Error::Index { file: path, problem })?;
        let mut shards: Vec<String> = map.into_values().collect();
        shards.sort();
        shards.dedup();
        shards
    } else {
        Vec::new()
    };
    if weights.is_empty() || weights.iter().any(|w| !names.contains(&w.as_str())) {
        let what = format!(
            "{id}: the hub has no complete safetensors weights for it (pickled .bin files are never loaded): try another \
             revision, or a converted copy of the model"
        );
        return Err(Error::Hub { what }.into());
    }
    fetch(&weights)?;
    // hf-hub has noted the commit as if it were a branch; the branch is what others look for
    let refs = cache::repo_dir(opts, id).join("refs");
    if commit != opts.revision() {
        let _ = std::fs::remove_file(refs.join(&commit));
        hub_cache.repo(named).create_ref(&commit).map_err(|e| Error::io("write", &refs, e))?;
    }
    Ok(folder)
}

/// Configuration, tokenizer and chat template: the small files that are needed beside the weights.
fn small_files(names: &[&str]) -> Vec<String> {
    const EXACT: [&str; 11] = [
        "config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "vocab.txt",
        "merges.txt",
        "chat_template.json",
        "chat_template.jinja",
        "adapter_config.json",
        "loram.json",
    ];
    let wanted =
        |n: &&&str| EXACT.contains(*n) || n.ends_with(".model") || (n.starts_with("tokenizer") && !n.ends_with(".bin"));
    names.iter().filter(|n| !n.contains('/')).filter(wanted).map(|n| n.to_string()).collect()
}

/// Commit of the revision, and its files with their sizes (0 when the hub does not say).
fn list(repo: &ApiRepo) -> std::result::Result<(String, BTreeMap<String, u64>), ApiError> {
    let mut response = repo.info_request().query("blobs", "true").call().map_err(Box::new)?;
    let info: Info = response.body_mut().read_json().map_err(Box::new)?;
    Ok((info.sha, info.siblings.into_iter().map(|s| (s.rfilename, s.size.unwrap_or(0))).collect()))
}

#[derive(serde::Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(serde::Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
}

fn failure(opts: &HubOptions, id: &str, e: &ApiError) -> Failure {
    let text = e.to_string();
    let status = text.split("http status: ").nth(1).and_then(|s| s.get(..3)).and_then(|s| s.parse::<u16>().ok());
    let what = match status {
        Some(401 | 403 | 404) => {
            let token =
                if opts.token.is_some() { "the token does not give access to it" } else { "HF_TOKEN is not set" };
            format!(
                "`{id}` (revision `{}`): the hub at {} knows no such model, or it is private or gated and {token}; if \
                 a local folder was meant, there is none of that name",
                opts.revision(),
                opts.endpoint
            )
        }
        Some(code) if code < 500 && code != 429 => format!("`{id}`: the hub refused the request: {text}"),
        _ => match e {
            ApiError::IoError(_) | ApiError::LockAcquisition(_) => format!("`{id}`: download failed: {text}"),
            _ => return Failure::Unreachable(text),
        },
    };
    Failure::Refused(Error::Hub { what })
}

/// Hands hf-hub's progress on.
struct Bar<'a> {
    file: &'a str,
    done: u64,
    total: u64,
    report: &'a mut dyn FnMut(&Download<'_>),
}

impl hf_hub::api::Progress for Bar<'_> {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = size as u64;
        self.done = 0;
        self.update(0);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        (self.report)(&Download { file: self.file, done: self.done, total: self.total });
    }

    fn finish(&mut self) {
        self.done = self.total;
        self.update(0);
    }
}
