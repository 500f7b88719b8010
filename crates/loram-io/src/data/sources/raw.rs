//! A record before anything is made of its fields.

use crate::Error;
use serde_json::Value;

/// A record as it stands in its file.
#[derive(Debug, Clone, PartialEq)]
pub enum RawRecord {
    /// A document of a text file.
    Document(String),
    /// A value of a JSON file, a row of a table, or a generated pair.
    Object(Value),
}

/// A record with its place.
pub(super) type Placed = (String, RawRecord);

/// An error of a data file.
pub(super) fn damaged(path: &str, what: impl Into<String>) -> Error {
    Error::Data { at: path.to_string(), what: what.into() }
}
