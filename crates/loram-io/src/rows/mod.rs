//! Rows of results in files of the kinds that data are read from: JSON Lines, CSV, TSV and parquet.

mod csv;
mod format;
mod json_lines;
mod parquet;

use crate::atomic::{AtomicFile, Output};
use crate::{Error, Result};
use format::Format;
use serde_json::{Map, Value};
use std::path::Path;

/// A file of rows, which appears when it is complete.
pub struct RowWriter {
    file: AtomicFile,
    format: Box<dyn Format>,
}

impl RowWriter {
    /// Begins a file, of the kind that its name ends in: `.jsonl`, `.csv`, `.tsv` or `.parquet`.
    ///
    /// # Errors
    /// Another ending; a file that exists and must stay.
    pub fn create<'a>(output: impl Into<Output<'a>>) -> Result<RowWriter> {
        let output = output.into();
        let format = format_of(output.path)?;
        output.check()?;
        Ok(RowWriter { file: AtomicFile::create(output.path)?, format })
    }

    /// Adds a row.
    ///
    /// # Errors
    /// Those of the file.
    pub fn write(&mut self, row: Map<String, Value>) -> Result<()> {
        self.format.row(row, &mut self.file)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// Those of the file.
    pub fn finish(mut self) -> Result<()> {
        self.format.finish(&mut self.file)?;
        self.file.commit()
    }
}

fn format_of(path: &Path) -> Result<Box<dyn Format>> {
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default();
    Ok(match ending.as_str() {
        "jsonl" | "ndjson" => Box::new(json_lines::JsonLines),
        "csv" => Box::new(csv::Csv::new(b',')),
        "tsv" => Box::new(csv::Csv::new(b'\t')),
        "parquet" => Box::new(parquet::Parquet::default()),
        _ => {
            let what = "expected a name that ends in .jsonl, .csv, .tsv or .parquet";
            return Err(Error::Usage(format!("{}: {what}", path.display())));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{RawRecord, raw_records};
    use serde_json::json;

    fn rows() -> Vec<Map<String, Value>> {
        let rows = [
            json!({"id": 1, "text": "a \"b\",\tc\nd", "p": 0.25, "ok": true, "all": {"x": 0.5, "y": [1, null]}}),
            json!({"id": 2, "text": "é", "p": 3, "ok": null, "extra": "only here"}),
        ];
        rows.into_iter().map(|row| row.as_object().unwrap().clone()).collect()
    }

    /// The rows as the readers of data find them.
    fn round_trip(name: &str) -> Vec<Map<String, Value>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        let mut writer = RowWriter::create(&path).unwrap();
        assert!(!path.exists());
        rows().into_iter().for_each(|row| writer.write(row).unwrap());
        writer.finish().unwrap();
        assert!(RowWriter::create(&path).is_err(), "a file that is there stays");
        let object = |(_, raw)| match raw {
            RawRecord::Object(Value::Object(fields)) => fields,
            other => panic!("{other:?}"),
        };
        raw_records(path.to_str().unwrap()).unwrap().into_iter().map(object).collect()
    }

    #[test]
    fn json_lines_keep_everything() {
        assert_eq!(round_trip("a.jsonl"), rows());
    }

    #[test]
    fn tables_have_all_columns() {
        for name in ["a.csv", "a.tsv"] {
            let found = round_trip(name);
            assert_eq!(found[0].keys().collect::<Vec<_>>(), ["id", "text", "p", "ok", "all", "extra"], "{name}");
            assert_eq!(found[0]["text"], rows()[0]["text"]);
            assert_eq!(found[1]["extra"], "only here");
            let all = found[0]["all"].as_str().unwrap();
            assert_eq!(serde_json::from_str::<Value>(all).unwrap(), rows()[0]["all"]);
        }
    }

    #[test]
    fn parquet_has_types() {
        let found = round_trip("a.parquet");
        assert_eq!(found[0]["id"], json!(1));
        assert_eq!((&found[0]["p"], &found[1]["p"]), (&json!(0.25), &json!(3.0)));
        assert_eq!(found[0]["ok"], json!(true));
        assert_eq!(found[0]["text"], rows()[0]["text"]);
        assert_eq!(found[0]["all"].as_str().unwrap(), rows()[0]["all"].to_string());
        assert!(found[0].get("extra").is_none_or(Value::is_null) && found[1]["extra"] == "only here");
    }

    #[test]
    fn other_endings_are_errors() {
        let error = RowWriter::create("a.xlsx").err().unwrap().to_string();
        assert!(error.contains(".jsonl, .csv, .tsv or .parquet"), "{error}");
    }
}
