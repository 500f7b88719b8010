//! Strict reading of a safetensors header: every rule of the format has its own error.
//!
//! Layout: `u64` little-endian header length, that many bytes of JSON, then the tensors' bytes without gaps.

use super::dtype::DType;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// Longest header that is read, as in the safetensors library.
pub const MAX_HEADER: usize = 100_000_000;

/// The rule that a safetensors file breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum HeaderProblem {
    #[error("truncated file: {found} bytes, a safetensors file has at least 10 (was the download interrupted?)")]
    Truncated { found: usize },
    #[error("{}", crate::lfs::POINTER)]
    LfsPointer,
    #[error("header length {length} exceeds the limit of {MAX_HEADER} bytes: not a safetensors file, or damaged")]
    HeaderTooLarge { length: u64 },
    #[error(
        "truncated file: the header of {length} bytes ends past the file's {found} bytes (was the download interrupted?)"
    )]
    HeaderPastEnd { length: u64, found: usize },
    #[error("header is not UTF-8 (byte {at}): not a safetensors file, or damaged")]
    NotUtf8 { at: usize },
    #[error("header is not a JSON object: {why}")]
    NotJson { why: String },
    #[error("duplicate tensor name `{name}` in the header")]
    DuplicateName { name: String },
    #[error("malformed header entry for `{name}`: {why}")]
    BadEntry { name: String, why: String },
    #[error("`__metadata__` must map strings to strings: {why}")]
    BadMetadata { why: String },
    #[error("tensor `{name}` has unknown dtype `{dtype}`")]
    UnknownDtype { name: String, dtype: String },
    #[error("tensor `{name}`: shape {shape:?} with dtype {dtype} has no representable size")]
    ShapeOverflow { name: String, shape: Vec<usize>, dtype: DType },
    #[error("tensor `{name}`: data offsets begin at {begin} and end before that at {end}")]
    BackwardOffsets { name: String, begin: usize, end: usize },
    #[error(
        "tensor `{name}` needs data up to byte {end}, the file holds {available} (truncated file, or a false header)"
    )]
    OutOfRange { name: String, end: usize, available: usize },
    #[error("tensor `{name}`: shape {shape:?} of {dtype} takes {expected} bytes, its offsets span {found}")]
    SizeMismatch { name: String, shape: Vec<usize>, dtype: DType, expected: usize, found: usize },
    #[error("tensors `{first}` and `{second}` overlap in the file")]
    Overlap { first: String, second: String },
    #[error("{bytes} bytes before tensor `{name}` belong to no tensor")]
    Hole { name: String, bytes: usize },
    #[error("{bytes} bytes after the last tensor belong to no tensor")]
    TrailingBytes { bytes: usize },
}

/// One tensor of a file: what the header says, with offsets from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name, e.g. `model.layers.0.self_attn.q_proj.weight`.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// First byte in the file.
    pub start: usize,
    /// Length in bytes.
    pub bytes: usize,
}

/// A checked header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Header {
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Tensors in the order of their bytes in the file.
    pub tensors: Vec<TensorInfo>,
}

#[derive(Deserialize, Serialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

/// Reads and checks the header of a whole file's bytes.
pub fn parse_header(file: &[u8]) -> Result<Header, HeaderProblem> {
    if crate::lfs::is_pointer(file) {
        return Err(HeaderProblem::LfsPointer);
    }
    let Some(length) = file.first_chunk::<8>().map(|b| u64::from_le_bytes(*b)) else {
        return Err(HeaderProblem::Truncated { found: file.len() });
    };
    if file.len() < 10 {
        return Err(HeaderProblem::Truncated { found: file.len() });
    }
    if length > MAX_HEADER as u64 {
        return Err(HeaderProblem::HeaderTooLarge { length });
    }
    let data_start = 8 + length as usize;
    let Some(json) = file.get(8..data_start) else {
        return Err(HeaderProblem::HeaderPastEnd { length, found: file.len() });
    };
    let json = std::str::from_utf8(json).map_err(|e| HeaderProblem::NotUtf8 { at: 8 + e.valid_up_to() })?;
    let entries: Entries = serde_json::from_str(json).map_err(|e| HeaderProblem::NotJson { why: e.to_string() })?;
    check(entries.0, data_start, file.len() - data_start)
}

fn check(
    entries: Vec<(String, serde_json::Value)>,
    data_start: usize,
    available: usize,
) -> Result<Header, HeaderProblem> {
    let mut header = Header::default();
    let mut seen = HashSet::new();
    for (name, value) in entries {
        if !seen.insert(name.clone()) {
            return Err(HeaderProblem::DuplicateName { name });
        }
        if name == "__metadata__" {
            header.metadata =
                serde_json::from_value(value).map_err(|e| HeaderProblem::BadMetadata { why: e.to_string() })?;
            continue;
        }
        let raw: RawEntry = match serde_json::from_value(value) {
            Ok(raw) => raw,
            Err(e) => return Err(HeaderProblem::BadEntry { name, why: e.to_string() }),
        };
        let Some(dtype) = DType::from_name(&raw.dtype) else {
            return Err(HeaderProblem::UnknownDtype { name, dtype: raw.dtype });
        };
        let (begin, end) = raw.data_offsets;
        if end < begin {
            return Err(HeaderProblem::BackwardOffsets { name, begin, end });
        }
        if end > available {
            return Err(HeaderProblem::OutOfRange { name, end, available });
        }
        let Some(expected) = dtype.bytes_for(&raw.shape) else {
            return Err(HeaderProblem::ShapeOverflow { name, shape: raw.shape, dtype });
        };
        if expected != end - begin {
            return Err(HeaderProblem::SizeMismatch { name, shape: raw.shape, dtype, expected, found: end - begin });
        }
        header.tensors.push(TensorInfo { name, dtype, shape: raw.shape, start: data_start + begin, bytes: expected });
    }
    // empty tensors share their offset with the next one: they come first
    header.tensors.sort_by_key(|t| (t.start, t.bytes));
    let mut end = data_start;
    let mut last = String::new();
    for t in &header.tensors {
        if t.start < end {
            return Err(HeaderProblem::Overlap { first: last, second: t.name.clone() });
        }
        if t.start > end {
            return Err(HeaderProblem::Hole { name: t.name.clone(), bytes: t.start - end });
        }
        end = t.start + t.bytes;
        last.clone_from(&t.name);
    }
    match data_start + available - end {
        0 => Ok(header),
        bytes => Err(HeaderProblem::TrailingBytes { bytes }),
    }
}

/// The JSON object as a list: a map would hide duplicate names.
struct Entries(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Entries;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut out = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    out.push(entry);
                }
                Ok(Entries(out))
            }
        }
        d.deserialize_map(Visit)
    }
}

/// The header's bytes (length, JSON padded with spaces to a multiple of 8) for tensors written one after another in
/// the given order. Tensors are listed in that order, metadata keys sorted: the same input gives the same bytes.
pub(crate) fn encode_header(metadata: &BTreeMap<String, String>, tensors: &[(String, DType, Vec<usize>)]) -> Vec<u8> {
    let mut map = serde_json::Map::new();
    if !metadata.is_empty() {
        map.insert("__metadata__".into(), serde_json::json!(metadata));
    }
    let mut at = 0;
    for (name, dtype, shape) in tensors {
        let end = at + dtype.bytes_for(shape).expect("sizes are checked by the caller");
        map.insert(
            name.clone(),
            serde_json::json!({ "dtype": dtype.name(), "shape": shape, "data_offsets": [at, end] }),
        );
        at = end;
    }
    let mut json = serde_json::to_vec(&map).expect("a map of strings and numbers");
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut out = (json.len() as u64).to_le_bytes().to_vec();
    out.extend(json);
    out
}
