//! Kinds of data files by the endings of their names. To add one: a file here that makes [`RawRecord`]s of its bytes, and a line in
//! [`KINDS`].

use super::file::read_text;
use super::raw::{Placed, RawRecord};
use super::{columnar, json, table};
use crate::Result;
use std::path::Path;

/// The separator of documents in a text file.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// Reads the records of a file.
pub(super) type Read = fn(&str) -> Result<Vec<Placed>>;

/// Kinds of files by the endings of their names, with what reads them.
pub(super) const KINDS: [(&[&str], Read); 6] = [
    (&["jsonl", "ndjson", "json"], of_json),
    (&["csv"], table::comma_separated),
    (&["tsv", "tab"], table::tab_separated),
    (&["parquet"], columnar::parquet),
    (&["arrow"], columnar::arrow),
    (&["txt"], of_text),
];

/// The same endings, for messages.
pub(super) const ENDINGS: &str = ".jsonl, .json, .csv, .tsv, .parquet, .arrow, .txt";

/// The reader of a file by its name, `.gz` aside.
pub(super) fn reader(path: &str) -> Option<Read> {
    let name = path.strip_suffix(".gz").unwrap_or(path);
    let ending = Path::new(name).extension()?.to_str()?;
    KINDS.iter().find(|(endings, _)| endings.contains(&ending)).map(|(_, read)| *read)
}

/// Returns whether a path has the ending of a data file.
pub fn has_known_ending(path: &str) -> bool {
    reader(path).is_some()
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
