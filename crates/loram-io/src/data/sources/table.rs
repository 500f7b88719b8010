//! Tables of separated values: CSV and TSV with a heading.
//!
//! As pandas and `datasets` do, a column whose cells are all numbers holds numbers, and an empty cell of it is null; other cells
//! are texts.

use super::file::read_text;
use super::raw::{Placed, RawRecord, damaged};
use crate::Result;
use csv::{ByteRecord, ReaderBuilder, StringRecord};
use serde_json::{Map, Number, Value};
use std::path::Path;

pub(super) fn comma_separated(path: &str) -> Result<Vec<Placed>> {
    let text = read_text(Path::new(path))?;
    let heading = text.lines().next().unwrap_or_default();
    // a spreadsheet writes semicolons where the comma is the decimal separator
    let delimiter = if heading.contains(',') || !heading.contains(';') { b',' } else { b';' };
    rows(path, &text, delimiter, true)
}

/// Tools quote cells, and corpora leave quotation marks as they are. A table in which every line has its columns, but not every
/// row its line when cells are quoted, is of the second kind.
pub(super) fn tab_separated(path: &str) -> Result<Vec<Placed>> {
    let text = read_text(Path::new(path))?;
    let quotes = !(text.contains("\t\"") || text.contains("\n\"")) || spans_lines(&text) != Some(true) || !even(&text);
    rows(path, &text, b'\t', quotes)
}

/// Returns whether a quoted cell has a line break in it; `None` for a text that is no such table.
fn spans_lines(text: &str) -> Option<bool> {
    let mut reader = ReaderBuilder::new().delimiter(b'\t').flexible(true).from_reader(text.as_bytes());
    let mut row = ByteRecord::new();
    while reader.read_byte_record(&mut row).ok()? {
        if row.iter().any(|cell| cell.contains(&b'\n')) {
            return Some(true);
        }
    }
    Some(false)
}

/// Returns whether all lines have as many tabs as the first one.
fn even(text: &str) -> bool {
    let mut tabs = text.lines().filter(|l| !l.is_empty()).map(|l| l.matches('\t').count());
    let first = tabs.next();
    tabs.all(|n| Some(n) == first)
}

fn rows(path: &str, text: &str, delimiter: u8, quoting: bool) -> Result<Vec<Placed>> {
    let mut reader = ReaderBuilder::new().delimiter(delimiter).quoting(quoting).from_reader(text.as_bytes());
    let heading = reader.headers().map_err(|e| of_csv(path, &e))?.clone();
    check_heading(path, &heading)?;
    let mut cells: Vec<(u64, StringRecord)> = Vec::new();
    for row in reader.into_records() {
        let row = row.map_err(|e| of_csv(path, &e))?;
        cells.push((row.position().map_or(0, csv::Position::line), row));
    }
    let numbers: Vec<bool> = (0..heading.len()).map(|c| is_numeric(cells.iter().map(|(_, row)| &row[c]))).collect();
    let value = |cell: &str, number: bool| match (number, cell.trim()) {
        (false, _) => Value::String(cell.into()),
        (true, "") => Value::Null,
        (true, cell) => parsed(cell).map_or(Value::Null, Value::Number),
    };
    let object = |row: &StringRecord| -> Map<String, Value> {
        let fields = heading.iter().zip(row).zip(&numbers);
        fields.map(|((name, cell), &number)| (name.trim().to_string(), value(cell, number))).collect()
    };
    Ok(cells.iter().map(|(line, row)| (format!("{path}:{line}"), RawRecord::Object(object(row).into()))).collect())
}

fn check_heading(path: &str, heading: &StringRecord) -> Result<()> {
    let names: Vec<&str> = heading.iter().map(str::trim).collect();
    if let Some(twice) = names.iter().enumerate().find(|(i, n)| names[..*i].contains(n)) {
        return Err(damaged(&format!("{path}:1"), format!("two columns are called `{}`", twice.1)));
    }
    if !names.is_empty() && names.iter().all(|n| n.parse::<f64>().is_ok()) {
        let what = "the first line holds numbers; expected the names of the columns";
        return Err(damaged(&format!("{path}:1"), what));
    }
    Ok(())
}

/// Returns whether all cells that are not empty are numbers, and there is one.
fn is_numeric<'a>(cells: impl Iterator<Item = &'a str>) -> bool {
    let mut filled = cells.map(str::trim).filter(|c| !c.is_empty()).peekable();
    filled.peek().is_some() && filled.all(|c| parsed(c).is_some())
}

/// A number as JSON writes it, with leading zeros of codes such as 007 excluded.
fn parsed(cell: &str) -> Option<Number> {
    serde_json::from_str(cell).ok()
}

fn of_csv(path: &str, e: &csv::Error) -> crate::Error {
    let at = e.position().map_or(path.to_string(), |p| format!("{path}:{}", p.line()));
    let what = match e.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => format!(
            "a row of {len} cells, where the heading has {expected_len}: a cell that holds the separator, a quotation mark or a \
             line break must be quoted (\"…\"), and a quotation mark in it doubled"
        ),
        _ => format!("malformed table: {e}"),
    };
    damaged(&at, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(name: &str, text: &str) -> Result<Vec<Value>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        let rows = if name.ends_with("csv") { comma_separated(&path) } else { tab_separated(&path) };
        Ok(rows?
            .into_iter()
            .map(|(_, r)| match r {
                RawRecord::Object(v) => v,
                RawRecord::Document(d) => panic!("{d}"),
            })
            .collect())
    }

    #[test]
    fn cells_are_texts_or_numbers_by_column() {
        let rows = read("a.csv", "text,label,code,score\n\"a, \"\"b\"\"\nc\",1,007,3.5\n5,0,12,\n").unwrap();
        assert_eq!(
            rows,
            [
                json!({"text": "a, \"b\"\nc", "label": 1, "code": "007", "score": 3.5}),
                json!({"text": "5", "label": 0, "code": "12", "score": null}),
            ]
        );
        assert_eq!(read("a.csv", "text;label\na, b;x\n").unwrap(), [json!({"text": "a, b", "label": "x"})]);
        // a spreadsheet's line ends, and no line end at the end
        assert_eq!(read("a.csv", "text,label\r\nx,y\r\nz,w").unwrap().len(), 2);
    }

    #[test]
    fn quotation_marks_of_corpora_are_text() {
        let rows = read("a.tsv", "text\tlabel\n\"open\tx\nplain\ty\nclosed\"\tz\n").unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[0], json!({"text": "\"open", "label": "x"}));
        // and of tools they quote
        assert_eq!(read("a.tsv", "text\tn\n\"a\tb\"\t1\n").unwrap(), [json!({"text": "a\tb", "n": 1})]);
        assert_eq!(read("a.tsv", "text\tn\n\"a\nb\"\t1\n").unwrap(), [json!({"text": "a\nb", "n": 1})]);
    }

    #[test]
    fn errors_name_the_line() {
        let said = |name: &str, text: &str| read(name, text).unwrap_err().to_string();
        let cells = said("a.csv", "text,label\na,b\nc,d,e\n");
        assert!(cells.contains("a.csv:3") && cells.contains("3 cells, where the heading has 2"), "{cells}");
        assert!(said("a.csv", "text,text\na,b\n").contains("a.csv:1: two columns are called `text`"));
        assert!(said("a.csv", "1,2\n3,4\n").contains("expected the names"));
    }
}
