//! The interface of a kind of file, and what tables have in common.

use crate::Result;
use crate::atomic::AtomicFile;
use serde_json::{Map, Value};

/// Writes the rows of one kind of file.
pub(super) trait Format {
    /// Adds a row.
    fn row(&mut self, row: Map<String, Value>, file: &mut AtomicFile) -> Result<()>;

    /// Writes what has been held back.
    fn finish(self: Box<Self>, file: &mut AtomicFile) -> Result<()>;
}

/// The columns of rows, in the order in which they appear.
pub(super) fn columns(rows: &[Map<String, Value>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for name in rows.iter().flat_map(|row| row.keys()) {
        if seen.insert(name.as_str()) {
            names.push(name.clone());
        }
    }
    names
}

/// A value as the text of a cell: texts as they are, lists and objects as JSON, nothing for null.
pub(super) fn cell(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
