//! Where records come from: files of several kinds, folders of the `datasets` library, data sets of the hub, generated ones.
//!
//! To add a kind of file: a file here that makes [`RawRecord`]s of its bytes, and a line in [`KINDS`].

mod columnar;
pub mod demo;
mod file;
mod folder;
mod json;
mod paths;
mod table;

pub use paths::{expand, fetch};

use crate::{Error, Result};
use file::read_text;
use serde_json::Value;
use std::path::Path;

/// The separator of documents in a text file.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// A record as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum RawRecord {
    /// A document of a text file.
    Document(String),
    /// A value of a JSON file, a row of a table, or a generated pair.
    Object(Value),
}

/// A record with its place.
type Placed = (String, RawRecord);

/// Reads the records of a file.
type Read = fn(&str) -> Result<Vec<Placed>>;

/// Kinds of files by the endings of their names, with what reads them.
const KINDS: [(&[&str], Read); 6] = [
    (&["jsonl", "ndjson", "json"], of_json),
    (&["csv"], table::comma_separated),
    (&["tsv", "tab"], table::tab_separated),
    (&["parquet"], columnar::parquet),
    (&["arrow"], columnar::arrow),
    (&["txt"], of_text),
];

/// The same endings, for messages.
const ENDINGS: &str = ".jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt";

/// The reader of a file by its name, `.gz` aside.
fn reader(path: &str) -> Option<Read> {
    let name = path.strip_suffix(".gz").unwrap_or(path);
    let ending = Path::new(name).extension()?.to_str()?;
    KINDS.iter().find(|(endings, _)| endings.contains(&ending)).map(|(_, read)| *read)
}

/// Returns whether a path has the ending of a data file.
pub fn has_known_ending(path: &str) -> bool {
    reader(path).is_some()
}

/// The records of one file or generated source, each with its place, before anything is made of their fields.
///
/// # Errors
/// A file that is not there, of an unknown kind, or damaged; they name the file, and the line or record where there is one.
pub fn raw_records(path: &str) -> Result<Vec<Placed>> {
    if path.starts_with(demo::PREFIX) {
        return of_pairs(path);
    }
    let file = Path::new(path);
    if file.is_dir() {
        return Err(paths::folder(path));
    }
    if !file.exists() {
        return Err(paths::absent(path));
    }
    let read = reader(path).ok_or_else(|| paths::other_kind(path))?;
    read(path)
}

fn of_pairs(path: &str) -> Result<Vec<Placed>> {
    let pair = |(i, (prompt, completion)): (usize, (String, String))| {
        let value = serde_json::json!({"prompt": prompt, "completion": completion});
        (format!("{path}:{}", i + 1), RawRecord::Object(value))
    };
    Ok(demo::generate(path)?.into_iter().enumerate().map(pair).collect())
}

fn of_json(path: &str) -> Result<Vec<Placed>> {
    let text = read_text(Path::new(path))?;
    Ok(json::objects(path, &text)?.into_iter().map(|(at, value)| (at, RawRecord::Object(value))).collect())
}

fn of_text(path: &str) -> Result<Vec<Placed>> {
    let text = read_text(Path::new(path))?;
    let documents = text.split(DOCUMENT_END).map(str::trim).filter(|d| !d.is_empty());
    let at = |i: usize| format!("{path}: document {}", i + 1);
    Ok(documents.enumerate().map(|(i, d)| (at(i), RawRecord::Document(d.to_string()))).collect())
}

/// An error of a data file.
fn damaged(path: &str, what: impl Into<String>) -> Error {
    Error::Data { at: path.to_string(), what: what.into() }
}
