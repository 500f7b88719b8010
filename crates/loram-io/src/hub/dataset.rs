//! Data sets of the hub: the files of one part of one configuration.
//!
//! The hub keeps a copy of every public data set in parquet, under the revision `refs/convert/parquet`, as
//! `<configuration>/<split>/0000.parquet`. Where there is none, the files of the repository are divided by their names, as
//! `datasets` does.

use super::cache;
use super::client::{Client, Failure, Listing};
use super::download::fetch;
use super::options::{Download, HubOptions};
use super::repo::Repo;
use super::resolve::{is_hub_id, is_read_only};
use crate::input::read_text;
use crate::{Error, Result, atomic};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const CONVERTED: &str = "refs/convert/parquet";

/// Endings of data files in repositories, `.gz` aside.
const ENDINGS: [&str; 6] = ["parquet", "jsonl", "ndjson", "csv", "tsv", "arrow"];

/// Splits by the words in names of files, in the order in which they are looked for (those of `datasets`).
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "val", "dev"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Returns whether a data path has the form of a data set of the hub: `owner/name`, `owner/name:split`,
/// `owner/name:config` or `owner/name:config:split`.
pub fn is_dataset(path: &str) -> bool {
    let mut parts = path.split(':');
    let id = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let word = |p: &&str| !p.is_empty() && p.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let is_file = ENDINGS.iter().chain(&["json", "txt", "gz", "tab"]).any(|e| id.ends_with(&format!(".{e}")));
    id.contains('/') && is_hub_id(id) && !is_file && rest.len() <= 2 && rest.iter().all(word)
}

/// The files of a data set of the hub, from the cache or downloaded into it. `path` is as in [`is_dataset`]: without a split it
/// is `train`, or the only one. One process asks the hub once, so that all its reads see one version.
///
/// # Errors
/// No such data set, configuration or split (those that there are get named); the hub out of reach and nothing in the cache.
pub fn dataset(path: &str, progress: &mut dyn FnMut(&Download<'_>)) -> Result<Vec<PathBuf>> {
    static SEEN: Mutex<BTreeMap<String, Vec<PathBuf>>> = Mutex::new(BTreeMap::new());
    let seen = || SEEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(files) = seen().get(path) {
        return Ok(files.clone());
    }
    let files = dataset_with(path, &HubOptions::from_env(), progress)?;
    seen().insert(path.to_string(), files.clone());
    Ok(files)
}

/// [`dataset`] with explicit options, whose revision is not used.
pub fn dataset_with(path: &str, opts: &HubOptions, progress: &mut dyn FnMut(&Download<'_>)) -> Result<Vec<PathBuf>> {
    let mut parts = path.split(':');
    let repo = Repo::dataset(parts.next().unwrap_or_default());
    let wanted: Vec<&str> = parts.collect();
    let unreachable = if opts.offline {
        "HF_HUB_OFFLINE is set".to_string()
    } else {
        match online(path, repo, &wanted, opts, progress) {
            Ok(files) => return Ok(files),
            Err(Failure::Refused(e)) if !is_read_only(&e) => return Err(e),
            Err(Failure::Refused(e)) => e.to_string(),
            Err(Failure::Unreachable { why, .. }) => format!("the hub at {} cannot be reached: {why}", opts.endpoint),
        }
    };
    let id = repo.id;
    let state = match cached(path, repo, &wanted, opts)? {
        Cached::Files(files) => {
            if !opts.offline {
                tracing::warn!("{path}: {unreachable}; using the cached copy");
            }
            return Ok(files);
        }
        Cached::Missing(file) => format!("is incomplete there (`{file}` is missing)"),
        Cached::Absent => "is not there".to_string(),
    };
    Err(Error::Hub {
        what: format!(
            "`{path}`: there is no local file or folder of that name, as the data set {id} of the hub it was looked for in the \
             cache {} and {state}, and {unreachable}; give the path of a data file, or run once with network access",
            opts.cache_dir.display()
        ),
    })
}

fn online(
    path: &str,
    repo: Repo<'_>,
    wanted: &[&str],
    opts: &HubOptions,
    progress: &mut dyn FnMut(&Download<'_>),
) -> super::client::Result<Vec<PathBuf>> {
    let client = Client::new(opts, repo)?;
    let parts = |listing: &Listing, revision| Parts::of(listing.files.keys().map(String::as_str), revision);
    let (revision, listing) = match client.list(CONVERTED) {
        Ok(listing) if parts(&listing, CONVERTED).files(wanted).is_some() => (CONVERTED, listing),
        // no copy, or one of a part of the data: the hub's word on the data set itself counts
        Ok(_) | Err(Failure::Refused(_)) => ("main", client.list("main")?),
        Err(e) => return Err(e),
    };
    let files = parts(&listing, revision).choose(path, wanted)?;
    let dir = cache::repo_dir(opts, repo);
    let dir = std::path::absolute(&dir).map_err(|e| Error::io("read", &dir, e))?;
    fetch(&client, &listing, &dir, &files, progress)?;
    // how it is found without network: which files there are, and the commit
    let names: Vec<&String> = listing.files.keys().collect();
    let list = listing_file(&dir, &listing.commit);
    if !list.exists() {
        atomic::write_json(&list, &names)?;
    }
    cache::note(&dir, revision, &listing.commit)?;
    Ok(files.iter().map(|f| dir.join("snapshots").join(&listing.commit).join(f)).collect())
}

/// A list of all files of a commit, beside its snapshot.
fn listing_file(repo: &Path, commit: &str) -> PathBuf {
    repo.join("listings").join(format!("{commit}.json"))
}

/// The state of the files in the cache.
enum Cached {
    Files(Vec<PathBuf>),
    Missing(String),
    Absent,
}

fn cached(path: &str, repo: Repo<'_>, wanted: &[&str], opts: &HubOptions) -> Result<Cached> {
    let dir = cache::repo_dir(opts, repo);
    let listed = |revision: &&str| -> Option<(PathBuf, Parts)> {
        let commit = cache::noted(&dir, revision)?;
        let names: Vec<String> = serde_json::from_str(&read_text(listing_file(&dir, &commit)).ok()?).ok()?;
        Some((dir.join("snapshots").join(commit), Parts::of(names.iter().map(String::as_str), revision)))
    };
    let listings: Vec<_> = [CONVERTED, "main"].iter().filter_map(listed).collect();
    let has_it = listings.iter().find(|(_, parts)| parts.files(wanted).is_some());
    let Some((snapshot, parts)) = has_it.or(listings.last()) else { return Ok(Cached::Absent) };
    let files = parts.choose(path, wanted)?;
    Ok(match files.iter().find(|f| !snapshot.join(f).exists()) {
        Some(missing) => Cached::Missing(missing.clone()),
        None => Cached::Files(files.iter().map(|f| snapshot.join(f)).collect()),
    })
}

/// Files by configuration and split.
#[derive(Debug, Default, PartialEq)]
struct Parts(BTreeMap<String, BTreeMap<String, Vec<String>>>);

impl Parts {
    fn of<'a>(files: impl Iterator<Item = &'a str>, revision: &str) -> Parts {
        let mut out = Parts::default();
        for file in files.filter(|f| crate::inside::is_inside(f)) {
            let place = if revision == CONVERTED { converted(file) } else { by_name(file) };
            if let Some((config, split)) = place {
                out.0.entry(config).or_default().entry(split).or_default().push(file.to_string());
            }
        }
        out
    }

    /// The configuration and the split that these words name.
    fn find<'a>(&'a self, wanted: &[&'a str]) -> Option<(&'a str, &'a str)> {
        let default = || match self.0.len() {
            1 => self.0.keys().next().map(String::as_str),
            _ => self.0.contains_key("default").then_some("default"),
        };
        let split = |config: &str| {
            let splits = self.0.get(config)?;
            if splits.len() == 1 { splits.keys().next().map(String::as_str) } else { Some("train") }
        };
        match *wanted {
            [] => default().and_then(|c| Some((c, split(c)?))),
            [config, split] => Some((config, split)),
            [word, ..] => match default().filter(|c| self.0[*c].contains_key(word)) {
                Some(config) => Some((config, word)),
                None => Some((word, split(word)?)),
            },
        }
    }

    fn files(&self, wanted: &[&str]) -> Option<&Vec<String>> {
        let (config, split) = self.find(wanted)?;
        self.0.get(config)?.get(split)
    }

    fn choose(&self, path: &str, wanted: &[&str]) -> Result<Vec<String>> {
        if let Some(files) = self.files(wanted) {
            return Ok(files.clone());
        }
        let id = path.split(':').next().unwrap_or(path);
        let mut there: Vec<String> = Vec::new();
        for (config, splits) in &self.0 {
            there.extend(splits.keys().map(|split| match self.0.len() {
                1 => format!("{id}:{split}"),
                _ => format!("{id}:{config}:{split}"),
            }));
        }
        let what = match there.is_empty() {
            true => {
                format!("`{id}`: the data set has no files that can be read (.parquet, .jsonl, .csv, .tsv, .arrow)")
            }
            false => format!("`{path}`: the data set has no such part; there are {}", there.join(", ")),
        };
        Err(Error::Hub { what })
    }
}

/// `config/split/0000.parquet`. A copy of the first gigabytes, `partial-train`, is none.
fn converted(file: &str) -> Option<(String, String)> {
    let (rest, name) = file.rsplit_once('/')?;
    let (config, split) = rest.split_once('/')?;
    (name.ends_with(".parquet") && !split.contains('/') && !split.starts_with("partial-"))
        .then(|| (config.to_string(), split.to_string()))
}

/// The folder is the configuration, unless it is called `data` or names a split; a word of the path is the split.
fn by_name(file: &str) -> Option<(String, String)> {
    let plain = file.strip_suffix(".gz").unwrap_or(file);
    let (stem, ending) = plain.rsplit_once('.')?;
    let text = ending == "json" && !["dataset_infos", "dataset_dict", "dataset_info", "state"].contains(&stem);
    (ENDINGS.contains(&ending) || text).then_some(())?;
    let split_of = |part: &str| {
        let part = part.to_lowercase();
        let mut words = part.split(|c: char| !c.is_ascii_alphabetic());
        words.find_map(|w| SPLITS.iter().find(|(_, words)| words.contains(&w)).map(|s| s.0))
    };
    let parts: Vec<&str> = stem.split('/').collect();
    let split = parts.iter().rev().find_map(|p| split_of(p)).unwrap_or("train");
    let folders = &parts[..parts.len() - 1];
    let config = folders.iter().rev().find(|f| **f != "data" && split_of(f).is_none()).unwrap_or(&"default");
    Some((config.to_string(), split.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_data_sets_are_told_from_paths() {
        for yes in ["tatsu-lab/alpaca", "HuggingFaceH4/no_robots:train", "openai/gsm8k:main:test", "a/b.c_d:x-1"] {
            assert!(is_dataset(yes), "{yes}");
        }
        for no in ["alpaca", "data/train.jsonl", "data/a.csv", "a/b/c", "./a/b", "a/b:", "a/b:c:d:e", "a/b:c/d", "C:/x"]
        {
            assert!(!is_dataset(no), "{no}");
        }
    }

    #[test]
    fn parts_are_chosen_as_datasets_does() {
        let converted = ["default/train/0000.parquet", "default/train/0001.parquet", "default/test/0000.parquet"];
        let parts = Parts::of(converted.into_iter(), CONVERTED);
        let chosen = |parts: &Parts, wanted: &[&str]| parts.choose("a/b", wanted).map(|f| f.join(" "));
        assert_eq!(chosen(&parts, &[]).unwrap(), converted[..2].join(" "));
        assert_eq!(chosen(&parts, &["test"]).unwrap(), converted[2]);
        assert_eq!(chosen(&parts, &["default", "test"]).unwrap(), converted[2]);
        assert_eq!(chosen(&parts, &["default"]).unwrap(), converted[..2].join(" "), "a configuration");
        let e = chosen(&parts, &["dev"]).unwrap_err().to_string();
        assert!(e.contains("no such part; there are a/b:test, a/b:train"), "{e}");

        let two = Parts::of(["main/train/0000.parquet", "socratic/train/0000.parquet"].into_iter(), CONVERTED);
        assert_eq!(chosen(&two, &["socratic"]).unwrap(), "socratic/train/0000.parquet");
        assert!(chosen(&two, &[]).unwrap_err().to_string().contains("a/b:main:train"));
        let cut = Parts::of(["default/partial-train/0000.parquet"].into_iter(), CONVERTED);
        assert!(cut.files(&[]).is_none());
    }

    #[test]
    fn files_of_a_repository_are_divided_by_their_names() {
        let place = |file: &str| by_name(file).map(|(c, s)| format!("{c} {s}"));
        for (file, expected) in [
            ("data/train-00000-of-00002.parquet", "default train"),
            ("main/test-00000-of-00001.parquet", "main test"),
            ("dev.jsonl", "default validation"),
            ("alpaca_data.json", "default train"),
            ("en/validation/part.csv.gz", "en validation"),
            ("training_set.tsv", "default train"),
        ] {
            assert_eq!(place(file).as_deref(), Some(expected), "{file}");
        }
        for file in ["README.md", "dataset_infos.json", "data/img.png", "script.py"] {
            assert_eq!(place(file), None, "{file}");
        }
    }
}
