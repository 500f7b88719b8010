//! Held-out data in two parts: a selection part, on which learning rates are chosen, and a test part for the score.
//!
//! The data of a task are divided once, by seed, and written beside the run folders; every run reads the same files. If a
//! task has no `eval_data`, a part of its training data is held out first.

use crate::names::file_name;
use crate::{Error, Result};
use loram_io::atomic;
use loram_io::checksum::sha256;
use loram_io::data::{DOCUMENT_END, RawRecord, expand_paths, raw_records};
use loram_train::TrainConfig;
use loram_train::batching::permutation;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Fewer documents than this are cut into pieces, so that they can be divided.
const FEW_DOCUMENTS: usize = 20;
/// Least length of such a piece in bytes.
const PIECE: usize = 1200;

/// How the data of a task are divided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SplitOptions {
    /// Share of the held-out records in the selection part; the rest is the test part.
    pub selection: f64,
    /// Share of the training records that is held out if a task has no `eval_data`.
    pub holdout: f64,
    /// Seed of the division.
    pub seed: u64,
    /// Train on this many records, chosen by the seed; `None`: all.
    pub train_samples: Option<usize>,
    /// Use at most this many records of the selection part.
    pub selection_samples: Option<usize>,
    /// Use at most this many records of the test part.
    pub test_samples: Option<usize>,
}

impl Default for SplitOptions {
    fn default() -> SplitOptions {
        SplitOptions {
            selection: 0.5,
            holdout: 0.1,
            seed: 0,
            train_samples: None,
            selection_samples: None,
            test_samples: None,
        }
    }
}

/// The options as text, for the name of the folder.
impl std::fmt::Display for SplitOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let n = |x: Option<usize>| x.map_or("all".to_string(), |n| n.to_string());
        write!(
            f,
            "selection {} holdout {} seed {} take {} {} {}",
            self.selection,
            self.holdout,
            self.seed,
            n(self.train_samples),
            n(self.selection_samples),
            n(self.test_samples)
        )
    }
}

/// The data of a task as files.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// Training data.
    pub train: Vec<String>,
    /// The selection part, on which learning rates are chosen.
    pub selection: PathBuf,
    /// The test part, on which the score is computed.
    pub test: PathBuf,
    /// Held-out sources; empty: held out from the training data.
    held_out: Vec<String>,
    source: Vec<String>,
    options: SplitOptions,
}

impl Split {
    /// The files of a task under `output`; [`Split::prepare`] writes them. Errors: a data file that does not exist.
    pub fn new(output: &Path, task: &str, config: &TrainConfig, options: &SplitOptions) -> Result<Split> {
        let (source, held_out) = (expand_paths(&config.train_data)?, expand_paths(&config.eval_data)?);
        for path in source.iter().chain(&held_out) {
            if !path.starts_with("demo:") && !Path::new(path).exists() {
                return Err(Error::Usage(format!("task `{task}`: no such data file `{path}`")));
            }
        }
        // other data or options get another folder, so that runs on the old data are recognised as different
        let hash = Sha256::digest(format!("{source:?} {held_out:?} {options}"));
        let mark: String = hash.iter().take(4).map(|b| format!("{b:02x}")).collect();
        let dir = output.join("data").join(format!("{}-{mark}", file_name(task)));
        let documents = |paths: &[String]| paths.iter().all(|p| p.trim_end_matches(".gz").ends_with(".txt"));
        let end = |paths: &[String]| if !paths.is_empty() && documents(paths) { "txt" } else { "jsonl" };
        let held_end = if held_out.is_empty() { end(&source) } else { end(&held_out) };
        let train = match held_out.is_empty() || options.train_samples.is_some() {
            true => vec![dir.join(format!("train.{}", end(&source))).display().to_string()],
            false => source.clone(),
        };
        Ok(Split {
            train,
            selection: dir.join(format!("selection.{held_end}")),
            test: dir.join(format!("test.{held_end}")),
            held_out,
            source,
            options: *options,
        })
    }

    /// Writes the files unless they exist. Two programs that do so at once write the same bytes.
    pub fn prepare(&self) -> Result<()> {
        let made_of = self.test.with_file_name("sources.json");
        // this file is written last
        if self.test.exists() {
            return self.unchanged(&made_of);
        }
        let o = &self.options;
        let mut train = match self.train == self.source {
            true => Vec::new(),
            false => read(&self.source)?,
        };
        let held = match self.held_out.is_empty() {
            false => read(&self.held_out)?,
            true => {
                let n = ((train.len() as f64 * o.holdout).round() as usize).max(2);
                if train.len() <= n {
                    return Err(too_few(&self.source, train.len()));
                }
                let (held, rest) = divide(train, n, o.seed);
                train = rest;
                held
            }
        };
        if self.train != self.source {
            let n = o.train_samples.unwrap_or(train.len());
            write(Path::new(&self.train[0]), &divide(train, n, o.seed.wrapping_add(2)).0)?;
        }
        if held.len() < 2 {
            return Err(too_few(if self.held_out.is_empty() { &self.source } else { &self.held_out }, held.len()));
        }
        let n = ((held.len() as f64 * o.selection).round() as usize).clamp(1, held.len() - 1);
        let (mut selection, mut test) = divide(held, n, o.seed.wrapping_add(1));
        selection.truncate(o.selection_samples.unwrap_or(usize::MAX));
        test.truncate(o.test_samples.unwrap_or(usize::MAX));
        let mut sums = BTreeMap::new();
        for path in self.files() {
            sums.insert(path, sha256(Path::new(path))?);
        }
        atomic::write_json(&made_of, &sums)?;
        write(&self.selection, &selection)?;
        write(&self.test, &test)
    }

    /// The files that the task names, without generated sets.
    fn files(&self) -> impl Iterator<Item = &String> {
        self.source.iter().chain(&self.held_out).filter(|path| !path.starts_with("demo:"))
    }

    /// Fails if a file has changed since its records were divided.
    fn unchanged(&self, made_of: &Path) -> Result<()> {
        // a folder of an earlier version has no checksums
        let Some(text) = loram_io::input::read_text_if_there(made_of)? else { return Ok(()) };
        let sums: BTreeMap<String, String> =
            serde_json::from_str(&text).map_err(|e| Error::folder(made_of, e.to_string()))?;
        for path in self.files() {
            if sums.get(path).is_some_and(|then| sha256(Path::new(path)).is_ok_and(|now| now != *then)) {
                let folder = made_of.parent().unwrap_or(made_of).display();
                return Err(Error::Usage(format!(
                    "{path}: has changed since {folder} was written from it, and earlier runs used the old data; restore the \
                     file, or give the grid another output_dir"
                )));
            }
        }
        Ok(())
    }
}

fn too_few(paths: &[String], n: usize) -> Error {
    let what = "too few to train, choose learning rates and score on separate parts";
    Error::Usage(format!("{}: {n} record(s): {what}", paths.join(", ")))
}

/// All records of these sources, with a few long documents cut into pieces.
fn read(paths: &[String]) -> Result<Vec<RawRecord>> {
    let mut out = Vec::new();
    for path in paths {
        out.extend(raw_records(path)?.into_iter().map(|(_, r)| r));
    }
    let documents = out.iter().filter(|r| matches!(r, RawRecord::Document(_))).count();
    if documents > 0 && documents != out.len() {
        return Err(Error::Usage(format!(
            "{}: text files and JSON files cannot be mixed in one task",
            paths.join(", ")
        )));
    }
    if documents == 0 || documents >= FEW_DOCUMENTS {
        return Ok(out);
    }
    let text = |r: RawRecord| match r {
        RawRecord::Document(text) => pieces(&text),
        RawRecord::Object(_) => Vec::new(),
    };
    Ok(out.into_iter().flat_map(text).map(RawRecord::Document).collect())
}

/// Cuts a text into pieces of at least [`PIECE`] bytes: at empty lines if it has any, else at line ends.
fn pieces(text: &str) -> Vec<String> {
    let between = if text.contains("\n\n") { "\n\n" } else { "\n" };
    let mut out = vec![String::new()];
    for part in text.split(between) {
        if out.last().is_some_and(|last| last.len() >= PIECE) {
            out.push(String::new());
        }
        if let Some(last) = out.last_mut() {
            if !last.is_empty() {
                last.push_str(between);
            }
            last.push_str(part);
        }
    }
    out.retain(|p| !p.trim().is_empty());
    out
}

/// `n` records chosen by seed, and the other ones, both in the order of the data.
fn divide(records: Vec<RawRecord>, n: usize, seed: u64) -> (Vec<RawRecord>, Vec<RawRecord>) {
    let mut chosen = vec![false; records.len()];
    permutation(records.len(), seed, 0).into_iter().take(n).for_each(|i| chosen[i] = true);
    let (a, b): (Vec<_>, Vec<_>) = records.into_iter().zip(chosen).partition(|(_, c)| *c);
    let plain = |list: Vec<(RawRecord, bool)>| list.into_iter().map(|(r, _)| r).collect();
    (plain(a), plain(b))
}

fn write(path: &Path, records: &[RawRecord]) -> Result<()> {
    let mut text = String::new();
    for (i, record) in records.iter().enumerate() {
        match record {
            RawRecord::Document(document) => {
                if i > 0 {
                    text += &format!("\n{DOCUMENT_END}\n");
                }
                text += document;
            }
            RawRecord::Object(value) => text += &format!("{value}\n"),
        }
    }
    Ok(atomic::write_bytes(path, text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn lines(path: &Path) -> Vec<String> {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_string).collect()
    }

    fn config(train: &str, eval: &[&str]) -> TrainConfig {
        TrainConfig {
            train_data: vec![train.into()],
            eval_data: eval.iter().map(|s| s.to_string()).collect(),
            ..TrainConfig::default()
        }
    }

    #[test]
    fn parts_are_disjoint_and_complete() {
        let dir = tempfile::tempdir().unwrap();
        let c = config("demo:restaurants?n=50", &["demo:restaurants?n=30&split=dev"]);
        let split = Split::new(dir.path(), "t", &c, &SplitOptions::default()).unwrap();
        split.prepare().unwrap();
        let (a, b) = (lines(&split.selection), lines(&split.test));
        assert_eq!((a.len(), b.len()), (15, 15));
        assert_eq!(a.iter().chain(&b).collect::<BTreeSet<_>>().len(), 30);
        assert_eq!(split.train, ["demo:restaurants?n=50"]);
        let other = SplitOptions { seed: 1, test_samples: Some(4), ..SplitOptions::default() };
        let again = Split::new(dir.path(), "t", &c, &other).unwrap();
        again.prepare().unwrap();
        assert_ne!(again.test, split.test, "other options have another folder");
        assert_eq!(lines(&again.test).len(), 4);
    }

    #[test]
    fn without_evaluation_data_some_training_data_are_held_out() {
        let dir = tempfile::tempdir().unwrap();
        let c = config("demo:restaurants?n=40", &[]);
        let split = Split::new(dir.path(), "t", &c, &SplitOptions { holdout: 0.25, ..Default::default() }).unwrap();
        split.prepare().unwrap();
        let train = lines(Path::new(&split.train[0]));
        let few = SplitOptions { train_samples: Some(7), ..Default::default() };
        let few =
            Split::new(dir.path(), "t", &config("demo:restaurants?n=40", &["demo:restaurants?n=9"]), &few).unwrap();
        few.prepare().unwrap();
        assert_eq!(lines(Path::new(&few.train[0])).len(), 7);
        assert_eq!((train.len(), lines(&split.selection).len(), lines(&split.test).len()), (30, 5, 5));
        assert!(lines(&split.test).iter().all(|l| !train.contains(l)));
    }

    #[test]
    fn changed_data_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, rows: std::ops::Range<usize>| {
            let path = dir.path().join(name).display().to_string();
            let text: String = rows.map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect();
            std::fs::write(&path, text).unwrap();
            path
        };
        let (train, held) = (file("train.jsonl", 0..9), file("dev.jsonl", 0..8));
        let split = Split::new(dir.path(), "t", &config(&train, &[&held]), &SplitOptions::default()).unwrap();
        split.prepare().unwrap();
        split.prepare().unwrap();
        file("dev.jsonl", 1..9);
        let what = split.prepare().unwrap_err().to_string();
        assert!(what.contains(&held) && what.contains("output_dir"), "{what}");
        file("dev.jsonl", 0..8);
        split.prepare().unwrap();
        file("train.jsonl", 0..10);
        assert!(split.prepare().unwrap_err().to_string().contains(&train));
    }

    #[test]
    fn one_long_document_is_divided_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("play.txt");
        let text: Vec<String> = (0..40).map(|i| format!("SPEAKER {i}:\n{}", "word ".repeat(100))).collect();
        std::fs::write(&path, text.join("\n\n")).unwrap();
        let c = config("demo:restaurants?n=4", &[path.to_str().unwrap()]);
        let split = Split::new(dir.path(), "play", &c, &SplitOptions::default()).unwrap();
        split.prepare().unwrap();
        let words = |p: &Path| std::fs::read_to_string(p).unwrap().matches("SPEAKER").count();
        assert_eq!(words(&split.selection) + words(&split.test), 40);
        assert!(std::fs::read_to_string(&split.test).unwrap().contains(DOCUMENT_END));
    }
}
