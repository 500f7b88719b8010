//! Fetching the files of a model that are needed, into the standard cache.

use super::cache;
use super::client::{Client, Listing, Result};
use super::options::{Download, HubOptions};
use super::repo::Repo;
use super::transfer::Source;
use crate::Error;
use std::path::{Path, PathBuf};

const INDEX: &str = crate::checkpoint::INDEX_FILE;

/// Makes the snapshot of the revision complete and returns its folder. Nothing is written when it is complete already.
pub(super) fn snapshot(opts: &HubOptions, id: &str, progress: &mut dyn FnMut(&Download<'_>)) -> Result<PathBuf> {
    let client = Client::new(opts, Repo::model(id))?;
    // files are fetched at the commit, so that a push meanwhile cannot mix two versions
    let listing = client.list(opts.revision())?;
    let repo =
        std::path::absolute(cache::repo_dir(opts, client.repo)).map_err(|e| Error::io("read", &opts.cache_dir, e))?;
    let folder = repo.join("snapshots").join(&listing.commit);
    let mut fetch = |names: &[String]| fetch(&client, &listing, &repo, names, progress);

    let names: Vec<&str> = listing.files.keys().map(String::as_str).collect();
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
    cache::note(&repo, opts.revision(), &listing.commit)?;
    Ok(folder)
}

/// Fetches those of the files that the snapshot does not have.
pub(super) fn fetch(
    client: &Client<'_>,
    listing: &Listing,
    repo: &Path,
    names: &[String],
    progress: &mut dyn FnMut(&Download<'_>),
) -> Result<()> {
    let folder = repo.join("snapshots").join(&listing.commit);
    let wanted: Vec<&String> = names.iter().filter(|n| !folder.join(n).exists()).collect();
    let cache_dir = repo.parent().unwrap_or(repo);
    let sizes = wanted.iter().filter_map(|n| *listing.files.get(*n)?);
    crate::disk::ensure_space(cache_dir, sizes.fold(0, u64::saturating_add))?;
    for file in wanted {
        let info = client.info(&listing.commit, file, listing.files.get(file).copied().flatten())?;
        let blobs = repo.join("blobs");
        let locks = cache_dir.join(".locks").join(repo.file_name().unwrap_or_default());
        for dir in [&blobs, &locks] {
            std::fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        }
        let lock = locks.join(format!("{}.lock", info.etag.as_str()));
        let source = Source { client, commit: &listing.commit, file, info: &info };
        source.fetch(&blobs.join(info.etag.as_str()), &lock, progress)?;
        cache::link(repo, &listing.commit, file, info.etag.as_str())?;
    }
    Ok(())
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
