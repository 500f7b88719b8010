//! Access to the fields of a record, with errors that name the record, the field and what was found.

use crate::{Error, Result};
use serde_json::{Map, Value};

/// The fields of a record that is read in a certain format.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<String, Value>,
    at: &'a str,
    /// Name of the format.
    format: &'static str,
    /// Columns that the format needs.
    columns: &'static [&'static str],
}

impl<'a> Fields<'a> {
    pub(super) fn new(
        map: &'a Map<String, Value>,
        at: &'a str,
        format: &'static str,
        columns: &'static [&'static str],
    ) -> Fields<'a> {
        Fields { map, at, format, columns }
    }

    /// Place of the record: `file:line`, or `file: record n`.
    pub fn at(&self) -> &'a str {
        self.at
    }

    /// The value of a field as written.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key)
    }

    /// The text in a field.
    ///
    /// # Errors
    /// The field is missing, or holds something else.
    pub fn text(&self, key: &str) -> Result<String> {
        match self.get(key) {
            Some(Value::String(s)) => Ok(s.clone()),
            Some(other) => Err(self.unexpected(key, "a text", other)),
            None => Err(self.missing(key)),
        }
    }

    /// The text in a field that may be missing or null.
    ///
    /// # Errors
    /// The field holds something else.
    pub fn optional_text(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => self.text(key).map(Some),
        }
    }

    /// An error at this record.
    pub fn error(&self, what: String) -> Error {
        Error::Data { at: self.at.to_string(), what }
    }

    /// The error of a field that is not there.
    pub fn missing(&self, key: &str) -> Error {
        let columns = self.columns.iter().map(|c| format!("`{c}`")).collect::<Vec<_>>().join(" and ");
        let there = names(self.map);
        self.error(format!("format {} needs {columns}: no field `{key}`, there are {there}", self.format))
    }

    /// The error of a field with a value of another type.
    pub fn unexpected(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.error(format!("field `{key}`: expected {expected}, found {}", kind(found)))
    }
}

/// True when a field is there and not null.
pub(super) fn has(fields: &Map<String, Value>, key: &str) -> bool {
    fields.get(key).is_some_and(|v| !v.is_null())
}

/// Names of fields, for messages.
pub(super) fn names(fields: &Map<String, Value>) -> String {
    fields.keys().map(|k| format!("`{k}`")).collect::<Vec<_>>().join(", ")
}

/// The type of a value, for messages.
pub(super) fn kind(v: &Value) -> &'static str {
    match v {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
