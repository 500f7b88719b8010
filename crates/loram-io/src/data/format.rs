//! The interface of a data format.

use super::fields::{Fields, has};
use super::record::Record;
use crate::Result;
use serde_json::{Map, Value};
use std::fmt::Debug;

/// A form that the records of a data set can have: the fields by which it is recognised, and what they mean.
pub trait DataFormat: Debug + Send + Sync {
    /// Name in configurations (`dataset_format`) and in messages.
    fn name(&self) -> &'static str;

    /// The columns that a record needs, for help texts and errors.
    fn columns(&self) -> &'static [&'static str];

    /// True for fields that make a record of this format. By default, all columns are there and not null.
    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        self.columns().iter().all(|c| has(fields, c))
    }

    /// Names of other formats whose records may stand among records of this one: 4 beside 3.5 is a number too.
    fn includes(&self) -> &'static [&'static str] {
        &[]
    }

    /// Settles what only all records of a data set together show.
    fn complete(&self, _records: &mut [Record]) {}

    /// Reads a record.
    ///
    /// # Errors
    /// A field that is missing or of another type; the error names the record and the field.
    fn read(&self, fields: &Fields<'_>) -> Result<Record>;
}

impl PartialEq for dyn DataFormat {
    fn eq(&self, other: &dyn DataFormat) -> bool {
        self.name() == other.name()
    }
}
