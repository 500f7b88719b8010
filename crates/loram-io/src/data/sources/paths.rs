//! Data paths as they are given: files, patterns of files, folders, data sets of the hub, generated sources; and what is said of
//! paths that hold no data.

use super::kinds::{ENDINGS, KINDS};
use super::{demo, folder};
use crate::hub::{self, Download};
use crate::{Error, Result};
use std::path::Path;

/// The files that these paths name: patterns such as `data/*.jsonl` expanded in alphabetical order, the files of a folder that
/// `datasets` has saved, and those of a data set of the hub ([`hub::dataset`]). Errors: a pattern that matches nothing; what the
/// hub says.
pub fn expand(paths: &[String]) -> Result<Vec<String>> {
    fetch(paths, &mut |_| {})
}

/// [`expand`], with the progress of downloads.
pub fn fetch(paths: &[String], progress: &mut dyn FnMut(&Download<'_>)) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for path in paths {
        let place = Path::new(path);
        if place.is_dir()
            && let Some(files) = folder::saved(place)?
        {
            out.extend(files);
        } else if path.starts_with(demo::PREFIX) || place.exists() {
            out.push(path.clone());
        } else if path.contains(['*', '?', '[']) {
            out.append(&mut matching(path)?);
        } else if hub::is_dataset(path) {
            let files = hub::dataset(path, progress)?;
            out.extend(files.iter().map(|p| p.display().to_string()));
        } else {
            out.push(path.clone());
        }
    }
    Ok(out)
}

fn matching(pattern: &str) -> Result<Vec<String>> {
    let wrong = |what: String| Error::NotFound { path: pattern.into(), what };
    let found = glob::glob(pattern).map_err(|e| wrong(format!("not a pattern of files: {}", e.msg)))?;
    let mut files: Vec<String> = found.flatten().filter(|p| p.is_file()).map(|p| p.display().to_string()).collect();
    files.sort();
    match files.is_empty() {
        true => Err(wrong("no file matches this pattern".into())),
        false => Ok(files),
    }
}

/// The error for a path that is not there.
pub(super) fn absent(path: &str) -> Error {
    let mut what = "no such data file".to_string();
    if !path.contains(['/', '\\', '.']) {
        what += "; a data set of the hub has the form owner/name, owner/name:split or owner/name:config:split";
    }
    Error::NotFound { path: path.into(), what }
}

/// The error for a folder that is no data set.
pub(super) fn folder(path: &str) -> Error {
    let names = folder::names(Path::new(path));
    let mut endings = KINDS.iter().flat_map(|(endings, _)| *endings);
    let found =
        endings.find(|e| names.iter().any(|n| n.ends_with(&format!(".{e}")) || n.ends_with(&format!(".{e}.gz"))));
    let what = match found {
        Some(e) => format!("is a folder: give files in it, such as '{}/*.{e}'", path.trim_end_matches('/')),
        None => format!("is a folder: expected a data file ({ENDINGS})"),
    };
    Error::NotFound { path: path.into(), what }
}

/// The error for a file of a kind that is not read.
pub(super) fn other_kind(path: &str) -> Error {
    let what = format!("unknown kind of data file; expected {ENDINGS}, the texts among them also with .gz");
    Error::NotFound { path: path.into(), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_files_in_order() {
        let room = tempfile::tempdir().unwrap();
        let at = |name: &str| room.path().join(name).display().to_string();
        for name in ["b.jsonl", "a.jsonl", "c.txt", "odd[1].jsonl"] {
            std::fs::write(at(name), "").unwrap();
        }
        assert_eq!(expand(&[at("?.jsonl")]).unwrap(), [at("a.jsonl"), at("b.jsonl")]);
        let kept = [at("odd[1].jsonl"), "demo:restaurants?n=3".into(), at("gone.jsonl")];
        assert_eq!(
            expand(&kept).unwrap(),
            kept,
            "a file of that very name, a generated source, a file that is not there"
        );
        assert!(expand(&[at("*.json")]).unwrap_err().to_string().contains("no file matches"));
    }

    #[test]
    fn other_paths_say_what_is_expected() {
        assert!(other_kind("t.xlsx").to_string().contains("expected .jsonl"));
        assert!(absent("alpaca").to_string().contains("owner/name:split"));
        assert!(!absent("data/train.jsonl").to_string().contains("owner/name"));
    }
}
