//! Parquet: a column of numbers, of true and false, or of texts, for each field.

use super::format::{Format, cell, columns};
use crate::atomic::AtomicFile;
use crate::{Error, Result};
use ::parquet::arrow::ArrowWriter;
use ::parquet::basic::Compression;
use ::parquet::file::properties::WriterProperties;
use arrow_array::{ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Holds all rows: the type of a column is that of all its values.
#[derive(Default)]
pub(super) struct Parquet {
    rows: Vec<Map<String, Value>>,
}

impl Format for Parquet {
    fn row(&mut self, row: Map<String, Value>, _: &mut AtomicFile) -> Result<()> {
        self.rows.push(row);
        Ok(())
    }

    fn finish(self: Box<Self>, file: &mut AtomicFile) -> Result<()> {
        let path = file.path().to_path_buf();
        let failed = |what: String| Error::io("write", &path, std::io::Error::other(what));
        let names = columns(&self.rows);
        let arrays = names.iter().map(|name| (name.as_str(), column(&self.rows, name), true));
        let batch = RecordBatch::try_from_iter_with_nullable(arrays).map_err(|e| failed(e.to_string()))?;
        let how = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
        let mut out = ArrowWriter::try_new(file, batch.schema(), Some(how)).map_err(|e| failed(e.to_string()))?;
        out.write(&batch).map_err(|e| failed(e.to_string()))?;
        out.close().map_err(|e| failed(e.to_string()))?;
        Ok(())
    }
}

fn column(rows: &[Map<String, Value>], name: &str) -> ArrayRef {
    let values: Vec<Option<&Value>> = rows.iter().map(|row| row.get(name).filter(|v| !v.is_null())).collect();
    let all = |is: fn(&Value) -> bool| values.iter().flatten().all(|v| is(v)) && values.iter().any(Option::is_some);
    if all(Value::is_boolean) {
        return Arc::new(values.iter().map(|v| (*v)?.as_bool()).collect::<BooleanArray>());
    }
    if all(Value::is_i64) {
        return Arc::new(values.iter().map(|v| (*v)?.as_i64()).collect::<Int64Array>());
    }
    if all(Value::is_number) {
        return Arc::new(values.iter().map(|v| (*v)?.as_f64()).collect::<Float64Array>());
    }
    Arc::new(values.iter().map(|v| v.map(|v| cell(Some(v)))).collect::<StringArray>())
}
