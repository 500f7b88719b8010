//! Records out of files.

use super::columns;
use super::demo;
use super::fields::{Fields, names};
use super::file::read_text;
use super::format::DataFormat;
use super::formats::{all_columns, formats, recognised};
use super::paths;
use super::record::{Record, Text};
use crate::limits::MAX_LINE;
use crate::{Error, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The separator of documents in a text file.
pub const DOCUMENT_END: &str = "<|endoftext|>";

/// Where data are and how they are to be read.
#[derive(Debug, Clone, Default)]
pub struct DataSpec {
    /// Files (`.jsonl`, `.json`, either with `.gz`, `.txt`) or generated sources (`demo:…`).
    pub paths: Vec<String>,
    /// Format of the records; recognised from their fields when absent.
    pub format: Option<&'static dyn DataFormat>,
    /// Field that the format has → field that the file has.
    pub columns: BTreeMap<String, String>,
    /// Field of the text, for plain text (`dataset_text_field`).
    pub text_field: Option<String>,
}

/// Reads all records. Errors name file and line: malformed JSON, a missing or mistyped field, formats that are mixed, an
/// empty set.
pub fn load_records(spec: &DataSpec) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    let mut format: Option<(&'static dyn DataFormat, String)> = spec.format.map(|f| (f, String::new()));
    for path in &paths::expand(&spec.paths)? {
        if path.starts_with(demo::PREFIX) {
            let pairs = demo::generate(path)?;
            records.extend(pairs.into_iter().enumerate().map(|(i, (prompt, completion))| {
                Record::new(format!("{path}:{}", i + 1), Text::PromptCompletion { prompt, completion })
            }));
            continue;
        }
        for (at, raw) in raw_records(path)? {
            records.push(match raw {
                RawRecord::Document(text) => Record::new(at, Text::Document(text)),
                RawRecord::Object(value) => record(spec, at, value, &mut format)?,
            });
        }
    }
    if records.is_empty() {
        return Err(Error::Data { at: spec.paths.join(", "), what: "no records: the data set is empty".into() });
    }
    Ok(records)
}

/// A record as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum RawRecord {
    /// A document of a text file.
    Document(String),
    /// A value of a JSON file, or a generated pair.
    Object(Value),
}

/// The records of one file or generated source, each with its place, before anything is made of their fields.
pub fn raw_records(path: &str) -> Result<Vec<(String, RawRecord)>> {
    if path.starts_with(demo::PREFIX) {
        let pair = |(i, (prompt, completion)): (usize, (String, String))| {
            let value = serde_json::json!({"prompt": prompt, "completion": completion});
            (format!("{path}:{}", i + 1), RawRecord::Object(value))
        };
        return Ok(demo::generate(path)?.into_iter().enumerate().map(pair).collect());
    }
    let file = Path::new(path);
    if file.is_dir() {
        return Err(paths::folder(path));
    }
    if !file.exists() {
        return Err(paths::absent(path));
    }
    let name = path.strip_suffix(".gz").unwrap_or(path);
    if ![".txt", ".json", ".jsonl", ".ndjson"].iter().any(|e| name.ends_with(e)) {
        return Err(paths::other_kind(path));
    }
    let text = read_text(file)?;
    if name.ends_with(".txt") {
        let documents = text.split(DOCUMENT_END).map(str::trim).filter(|d| !d.is_empty());
        let at = |i: usize| format!("{path}: document {}", i + 1);
        return Ok(documents.enumerate().map(|(i, d)| (at(i), RawRecord::Document(d.to_string()))).collect());
    }
    Ok(objects(path, &text)?.into_iter().map(|(at, value)| (at, RawRecord::Object(value))).collect())
}

/// The objects of a JSON array, or of JSON Lines, each with its place.
fn objects(path: &str, text: &str) -> Result<Vec<(String, Value)>> {
    if text.trim_start().starts_with('[') {
        let list: Vec<Value> = serde_json::from_str(text)
            .map_err(|e| Error::Data { at: format!("{path}:{}", e.line()), what: format!("malformed JSON: {e}") })?;
        return Ok(list.into_iter().enumerate().map(|(i, v)| (format!("{path}: record {}", i + 1), v)).collect());
    }
    let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, line)| {
            let at = format!("{path}:{}", i + 1);
            if line.len() > MAX_LINE {
                let what = format!("a line of {} bytes; a record may have at most {MAX_LINE}", line.len());
                return Err(Error::Data { at, what });
            }
            match serde_json::from_str(line) {
                Ok(v) => Ok((at, v)),
                Err(e) => {
                    let hint = likely_cause(path, text).map_or(String::new(), |hint| format!("; {hint}"));
                    Err(Error::Data { what: format!("malformed JSON at column {}: {e}{hint}", e.column()), at })
                }
            }
        })
        .collect()
}

/// Returns the likely kind of a file that cannot be read as JSON Lines.
fn likely_cause(path: &str, text: &str) -> Option<String> {
    let first = text.lines().find(|l| !l.trim().is_empty())?.trim();
    if first.starts_with('{') {
        let spread = serde_json::Deserializer::from_str(text).into_iter::<Value>().all(|v| v.is_ok());
        return spread.then(|| {
            format!(
                "records are spread over several lines: expected one line for each, as `jq -c . {path}` prints them"
            )
        });
    }
    let delimiter = [",", "\t"].into_iter().find(|d| first.contains(d))?;
    Some(format!(
        "the first line looks like that of a table: {}",
        paths::of_table(path, &delimiter.escape_default().to_string())
    ))
}

fn record(
    spec: &DataSpec,
    at: String,
    value: Value,
    format: &mut Option<(&'static dyn DataFormat, String)>,
) -> Result<Record> {
    let bad = |what: String| Err(Error::Data { at: at.clone(), what });
    let Value::Object(mut fields) = value else {
        return bad("expected a JSON object".into());
    };
    let renames = spec.columns.iter().map(|(to, from)| (to.as_str(), from.as_str()));
    for (to, from) in renames.chain(spec.text_field.as_deref().map(|f| ("text", f))) {
        match fields.get(from) {
            Some(v) => drop(fields.insert(to.to_string(), v.clone())),
            None => {
                return bad(format!("no field `{from}` (given as the column of `{to}`); there are {}", names(&fields)));
            }
        }
    }
    let found = recognised(&fields);
    // a field of a format that is null has an error of its own
    let named = formats().iter().rev().copied().find(|f| f.columns().iter().all(|c| fields.contains_key(*c)));
    let (wanted, first) = match (&*format, found.or(named)) {
        (Some(f), _) => f.clone(),
        (None, Some(f)) => (f, at.clone()),
        (None, None) => {
            return bad(format!(
                "no known format in the fields {}; expected {}; to rename columns: {}",
                names(&fields),
                all_columns(),
                columns::renaming(&fields)
            ));
        }
    };
    if let (Some(f), None) = (found, spec.format)
        && f != wanted
        && !wanted.includes().contains(&f.name())
    {
        return bad(format!("mixed formats: format {} here, {} at {first}", f.name(), wanted.name()));
    }
    if format.is_none() {
        *format = Some((wanted, first));
    }
    wanted.read(&Fields::new(&fields, &at, wanted.name(), wanted.columns()))
}
