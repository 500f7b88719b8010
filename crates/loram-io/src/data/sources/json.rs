//! JSON files: a list of objects, or one object a line.

use crate::limits::MAX_LINE;
use crate::{Error, Result};
use serde_json::Value;

/// The objects of a JSON array, or of JSON Lines, each with its place.
pub(super) fn objects(path: &str, text: &str) -> Result<Vec<(String, Value)>> {
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
    let kind = [(",", "csv"), ("\t", "tsv")].into_iter().find(|(d, _)| first.contains(d))?.1;
    Some(format!("the first line looks like that of a table: give the file a name that ends in .{kind}"))
}
