//! Parquet and Arrow files, as `datasets`, pandas and the hub write them.
//!
//! Rows become JSON objects. Columns of bytes (images, audio), times and decimals are left out. Classes that `datasets` stores as numbers get their
//! names, which it keeps in the schema.

use super::cells;
use super::raw::{Placed, RawRecord, damaged};
use crate::caught::caught;
use crate::error::human_bytes;
use crate::limits::{MAX_DATA, MAX_LINE, MAX_UNPACKED_RATIO, UNPACKED_ALWAYS};
use crate::{Error, Result, input, lfs};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::reader::StreamDecoder;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;
use std::path::Path;

/// Rows that are unpacked at a time.
const ROWS: usize = 1024;

pub(super) fn parquet(path: &str) -> Result<Vec<Placed>> {
    let (file, length) = open(path)?;
    library(path, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| cut(path, e))?;
        // that of a batch lacks the notes of the file
        let schema = builder.schema().clone();
        let read = (0..schema.fields().len()).filter(|&i| cells::is_read(schema.field(i).data_type()));
        let read = ProjectionMask::roots(builder.parquet_schema(), read);
        let batches = builder.with_projection(read).with_batch_size(ROWS).build().map_err(|e| cut(path, e))?;
        records(path, length, Some(schema), batches)
    })
}

/// A stream of batches, as `datasets` writes it, or the same between a mark and an index.
pub(super) fn arrow(path: &str) -> Result<Vec<Placed>> {
    refuse_packed(path)?;
    let bytes = input::read(path, MAX_DATA)?;
    refuse_pointer(path, &bytes)?;
    let length = bytes.len() as u64;
    let stream = stream(&bytes).ok_or_else(|| cut(path, "its end is missing"))?;
    library(path, || {
        let mut rest = Buffer::from(bytes).slice_with_length(stream.start, stream.len());
        let mut decoder = StreamDecoder::new();
        let next = || match decoder.decode(&mut rest) {
            Ok(None) => decoder.finish().err().map(Err),
            Ok(Some(batch)) => Some(Ok(batch)),
            Err(e) => Some(Err(e)),
        };
        let read = records(path, length, None, std::iter::from_fn(next))?;
        match decoder.schema() {
            Some(_) => Ok(read),
            None => Err(cut(path, "no schema in it")),
        }
    })
}

/// Where the stream is in a file: between the mark, padded to 8 bytes, and the index, with its length and the mark again.
fn stream(bytes: &[u8]) -> Option<Range<usize>> {
    const MARK: &[u8] = b"ARROW1";
    if !bytes.starts_with(MARK) {
        return Some(0..bytes.len());
    }
    let (rest, index) = bytes.strip_suffix(MARK)?.split_last_chunk::<4>()?;
    let end = rest.len().checked_sub(usize::try_from(i32::from_le_bytes(*index)).ok()?)?;
    (end >= 8).then_some(8..end)
}

fn refuse_packed(path: &str) -> Result<()> {
    match path.ends_with(".gz") {
        true => {
            Err(damaged(path, "columns are packed inside the file: expected no .gz around it; unpack it with gunzip"))
        }
        false => Ok(()),
    }
}

fn refuse_pointer(path: &str, start: &[u8]) -> Result<()> {
    if lfs::is_pointer(start) { Err(damaged(path, lfs::POINTER)) } else { Ok(()) }
}

/// A data file and its size.
fn open(path: &str) -> Result<(File, u64)> {
    refuse_packed(path)?;
    let mut file = input::open(path)?;
    let io = |e| Error::io("read", path, e);
    let mut start = Vec::new();
    (&mut file).take(lfs::START).read_to_end(&mut start).map_err(io)?;
    refuse_pointer(path, &start)?;
    file.rewind().map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    Ok((file, length))
}

/// Runs the reader of a library, whose panics are errors of the file.
fn library<T>(path: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
    caught(run).unwrap_or_else(|e| Err(cut(path, e)))
}

fn cut(path: &str, e: impl std::fmt::Display) -> Error {
    let e = e.to_string();
    if ["lz4", "zstd"].iter().any(|codec| e.contains(&format!("{codec} feature"))) {
        return damaged(path, "compressed Arrow files are not read: write it as parquet, or uncompressed");
    }
    let kind = Path::new(path).extension().and_then(|e| e.to_str()).unwrap_or_default();
    damaged(path, format!("cannot be read as {kind}: {e}: the file is damaged or incomplete"))
}

/// All rows; `schema` is that of the file, where it has more in it than that of a batch.
fn records(
    path: &str,
    length: u64,
    schema: Option<SchemaRef>,
    batches: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>>,
) -> Result<Vec<Placed>> {
    let limit = UNPACKED_ALWAYS.max(MAX_UNPACKED_RATIO * length);
    let (mut out, mut unpacked) = (Vec::new(), 0);
    for batch in batches {
        let batch = batch.map_err(|e| cut(path, e))?;
        let classes = classes(schema.as_ref().unwrap_or(&batch.schema()));
        for i in 0..batch.num_rows() {
            let at = format!("{path}: record {}", out.len() + 1);
            let mut value = Value::Object(cells::row(&batch, i));
            let size = size(&value);
            if size > MAX_LINE as u64 {
                return Err(damaged(&at, format!("{size} bytes; a record may have at most {MAX_LINE}")));
            }
            unpacked += size;
            if unpacked > limit {
                let what = format!(
                    "{} unpack to more than {}, as no text does: write it as JSON Lines if that is right",
                    human_bytes(length),
                    human_bytes(limit)
                );
                return Err(damaged(path, what));
            }
            for (column, names) in &classes {
                if let Some(value) = value.get_mut(column) {
                    named(value, names);
                }
            }
            out.push((at, RawRecord::Object(value)));
        }
    }
    Ok(out)
}

/// About the bytes of a value in memory.
fn size(value: &Value) -> u64 {
    let own = size_of::<Value>() as u64;
    own + match value {
        Value::String(s) => s.len() as u64,
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(k, v)| k.len() as u64 + size(v)).sum(),
        _ => 0,
    }
}

/// Columns of classes, or of lists of them, and the names of their classes.
fn classes(schema: &Schema) -> Vec<(String, Vec<String>)> {
    let info = schema.metadata().get("huggingface").and_then(|text| serde_json::from_str::<Value>(text).ok());
    let features = info.as_ref().and_then(|v| v.pointer("/info/features")?.as_object());
    let class = |feature: &Value| -> Option<Vec<String>> {
        let feature = feature.get("feature").unwrap_or(feature);
        // a list of one feature, as older files have it
        let feature = feature.as_array().and_then(|list| list.first()).unwrap_or(feature);
        (feature.get("_type")?.as_str()? == "ClassLabel").then_some(())?;
        let names = feature.get("names")?.as_array()?;
        Some(names.iter().filter_map(|n| n.as_str().map(str::to_string)).collect())
    };
    features.into_iter().flatten().filter_map(|(name, feature)| Some((name.clone(), class(feature)?))).collect()
}

/// Puts names in the place of numbers of classes. A number without a class, such as the −1 of hidden labels, is null.
fn named(value: &mut Value, names: &[String]) {
    match value {
        Value::Number(n) => {
            let name = n.as_u64().and_then(|i| names.get(usize::try_from(i).ok()?));
            *value = name.map_or(Value::Null, |name| Value::String(name.clone()));
        }
        Value::Array(list) => list.iter_mut().for_each(|v| named(v, names)),
        _ => {}
    }
}
