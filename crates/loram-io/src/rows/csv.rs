//! Comma- and tab-separated values.

use super::format::{Format, cell, columns};
use crate::atomic::AtomicFile;
use crate::{Error, Result};
use ::csv::WriterBuilder;
use serde_json::{Map, Value};

/// Holds all rows: the last one may have a column that the others lack.
pub(super) struct Csv {
    delimiter: u8,
    rows: Vec<Map<String, Value>>,
}

impl Csv {
    pub fn new(delimiter: u8) -> Csv {
        Csv { delimiter, rows: Vec::new() }
    }
}

impl Format for Csv {
    fn row(&mut self, row: Map<String, Value>, _: &mut AtomicFile) -> Result<()> {
        self.rows.push(row);
        Ok(())
    }

    fn finish(self: Box<Self>, file: &mut AtomicFile) -> Result<()> {
        let names = columns(&self.rows);
        let path = file.path().to_path_buf();
        let failed = |e: ::csv::Error| Error::io("write", &path, e.into());
        let mut out = WriterBuilder::new().delimiter(self.delimiter).from_writer(file);
        out.write_record(&names).map_err(failed)?;
        for row in &self.rows {
            out.write_record(names.iter().map(|name| cell(row.get(name)))).map_err(failed)?;
        }
        out.flush().map_err(|e| Error::io("write", &path, e))
    }
}
