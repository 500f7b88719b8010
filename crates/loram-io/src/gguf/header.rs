//! Strict reading of a GGUF header: every rule of the format has its own error, and nothing is allocated on the word of a
//! count alone.
//!
//! Layout (little-endian): `GGUF`, version, number of tensors and of metadata entries; the entries; name, dimensions, type and
//! offset of every tensor; and from the next multiple of `general.alignment` on the tensors' bytes.

use super::types::{self, Stored};
use crate::checkpoint::TensorInfo;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;

/// First bytes of a file.
pub const MAGIC: &[u8; 4] = b"GGUF";

/// Entries of the metadata, and tensors, at most: far beyond real files.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
/// Bytes of a key, as in the specification, and of a tensor's name, of which ggml allows 64.
const MAX_KEY: usize = (1 << 16) - 1;
const MAX_NAME: usize = 1 << 10;
/// Dimensions of a tensor, as in ggml.
const MAX_DIMENSIONS: u32 = 4;
/// Where a file names no alignment.
const ALIGNMENT: u64 = 32;

/// The rule that a GGUF file breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum GgufProblem {
    #[error("{}", crate::lfs::POINTER)]
    LfsPointer,
    #[error("does not begin with `GGUF`: not a GGUF file, or damaged")]
    Magic,
    #[error("is a big-endian GGUF file: convert it with gguf-py's gguf_convert_endian.py")]
    BigEndian,
    #[error("GGUF version {version} is not supported, only 2 and 3: convert the original model anew")]
    Version { version: u32 },
    #[error("truncated file: {what} needs bytes up to {end}, the file has {found} (was the download interrupted?)")]
    Truncated { what: String, end: u128, found: usize },
    #[error("{found} {what} are more than any file has (at most {most}): a damaged file")]
    TooMany { what: &'static str, found: u64, most: u64 },
    #[error("{what} of {found} bytes is longer than any (at most {most}): a damaged file")]
    TooLong { what: String, found: u64, most: usize },
    #[error("{what} is not UTF-8: a damaged file")]
    NotUtf8 { what: String },
    #[error("metadata `{key}` is there twice")]
    DuplicateKey { key: String },
    #[error("metadata `{key}` has unknown type {kind}: a damaged file, or a newer version of the format")]
    UnknownKind { key: String, kind: u32 },
    #[error("metadata `{key}` is a list of lists, which no file has")]
    NestedList { key: String },
    #[error("metadata `general.alignment` is {found}, expected a power of two from 8 to 65536")]
    Alignment { found: String },
    #[error("duplicate tensor name `{name}`")]
    DuplicateName { name: String },
    #[error("tensor `{name}` has {found} dimensions, expected 1 to 4")]
    Dimensions { name: String, found: u32 },
    #[error("tensor `{name}`: shape {shape:?} has no representable size")]
    ShapeOverflow { name: String, shape: Vec<u64> },
    #[error(
        "tensor `{name}` is stored as {found}, which is not supported: take a file in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, \
         Q8_0, Q2_K, Q3_K, Q4_K, Q5_K or Q6_K"
    )]
    UnsupportedType { name: String, found: String },
    #[error("tensor `{name}`: rows of {row} values are not whole blocks of {block}, as {dtype} has them")]
    PartialBlock { name: String, row: usize, block: usize, dtype: &'static str },
    #[error("tensor `{name}` begins at offset {offset}, which is not a multiple of the alignment {alignment}")]
    Unaligned { name: String, offset: u64, alignment: u64 },
    #[error("tensor `{name}` needs data up to byte {end}, the file holds {found} (truncated file, or a false header)")]
    OutOfRange { name: String, end: u128, found: usize },
    #[error("tensors `{first}` and `{second}` overlap in the file")]
    Overlap { first: String, second: String },
}

type Result<T> = std::result::Result<T, GgufProblem>;

/// A value of the metadata. Texts and lists stay in the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any type of whole numbers.
    Whole(i128),
    /// A number in f32 or f64, the former as its shortest decimal digits.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// The bytes of a text, which is UTF-8.
    Text(Range<usize>),
    /// A list of values of one kind.
    List(List),
}

/// A list in the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List {
    kind: u32,
    count: usize,
    at: Range<usize>,
}

/// A checked header.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufHeader {
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// Keys in the order of the file, with the bytes of kind and value.
    pub entries: Vec<(String, Range<usize>)>,
    /// Tensors in the order of their bytes in the file.
    pub tensors: Vec<TensorInfo>,
    /// Where the bytes of the tensors begin.
    pub data_start: usize,
}

const TEXT: u32 = 8;
const LIST: u32 = 9;

/// Bytes of a value of a kind that has a fixed size.
fn size_of_kind(kind: u32) -> Option<usize> {
    Some(match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        10..=12 => 8,
        _ => return None,
    })
}

/// A value of fixed size.
fn plain(kind: u32, b: &[u8]) -> Option<Value> {
    fn bytes<const N: usize>(b: &[u8]) -> [u8; N] {
        *b.first_chunk().expect("the size of the kind")
    }
    Some(match kind {
        0 => Value::Whole(b[0].into()),
        1 => Value::Whole((b[0] as i8).into()),
        2 => Value::Whole(u16::from_le_bytes(bytes(b)).into()),
        3 => Value::Whole(i16::from_le_bytes(bytes(b)).into()),
        4 => Value::Whole(u32::from_le_bytes(bytes(b)).into()),
        5 => Value::Whole(i32::from_le_bytes(bytes(b)).into()),
        6 => Value::Float(f32::from_le_bytes(bytes(b)).to_string().parse().unwrap_or(f64::NAN)),
        7 => Value::Bool(b[0] != 0),
        10 => Value::Whole(u64::from_le_bytes(bytes(b)).into()),
        11 => Value::Whole(i64::from_le_bytes(bytes(b)).into()),
        12 => Value::Float(f64::from_le_bytes(bytes(b))),
        _ => return None,
    })
}

/// Reads and checks the header of a whole file's bytes.
pub fn parse_gguf(file: &[u8]) -> Result<GgufHeader> {
    if crate::lfs::is_pointer(file) {
        return Err(GgufProblem::LfsPointer);
    }
    if !file.starts_with(MAGIC) {
        return Err(GgufProblem::Magic);
    }
    let mut r = Reader { file, at: MAGIC.len() };
    match r.u32("the header")? {
        2 | 3 => {}
        version if matches!(version.swap_bytes(), 1..=3) => return Err(GgufProblem::BigEndian),
        version => return Err(GgufProblem::Version { version }),
    }
    let (tensors, entries) = (r.u64("the header")?, r.u64("the header")?);
    if tensors > MAX_TENSORS {
        return Err(GgufProblem::TooMany { what: "tensors", found: tensors, most: MAX_TENSORS });
    }
    if entries > MAX_ENTRIES {
        return Err(GgufProblem::TooMany { what: "metadata entries", found: entries, most: MAX_ENTRIES });
    }
    let mut metadata = BTreeMap::new();
    let mut places = Vec::new();
    for _ in 0..entries {
        let key = r.name("a key of the metadata", MAX_KEY)?;
        let start = r.at;
        let value = r.value(&key)?;
        places.push((key.clone(), start..r.at));
        if metadata.insert(key.clone(), value).is_some() {
            return Err(GgufProblem::DuplicateKey { key });
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => ALIGNMENT,
        Some(Value::Whole(n @ 8..=65_536)) if (*n as u64).is_power_of_two() => *n as u64,
        Some(other) => return Err(GgufProblem::Alignment { found: format!("{other:?}") }),
    };
    let mut raw = Vec::new();
    let mut seen = HashSet::new();
    for _ in 0..tensors {
        let tensor = r.tensor()?;
        if !seen.insert(tensor.name.clone()) {
            return Err(GgufProblem::DuplicateName { name: tensor.name });
        }
        raw.push(tensor);
    }
    let data_start = r.at.next_multiple_of(alignment as usize);
    let mut tensors =
        raw.into_iter().map(|t| t.check(alignment, data_start, file.len())).collect::<Result<Vec<TensorInfo>>>()?;
    tensors.sort_by_key(|t| (t.start, t.bytes));
    if let Some(two) = tensors.windows(2).find(|two| two[0].start + two[0].bytes > two[1].start) {
        let (first, second) = (two[0].name.clone(), two[1].name.clone());
        return Err(GgufProblem::Overlap { first, second });
    }
    Ok(GgufHeader { metadata, entries: places, tensors, data_start })
}

/// A tensor as the file describes it.
struct RawTensor {
    name: String,
    /// Innermost first.
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

impl RawTensor {
    fn check(self, alignment: u64, data_start: usize, found: usize) -> Result<TensorInfo> {
        let RawTensor { name, mut dimensions, kind, offset } = self;
        let dtype = match types::stored(kind) {
            Stored::As(dtype) => dtype,
            Stored::Unsupported(found) => {
                return Err(GgufProblem::UnsupportedType { name, found: found.into() });
            }
            Stored::Unknown => {
                return Err(GgufProblem::UnsupportedType { name, found: format!("type {kind}, which is unknown") });
            }
        };
        dimensions.reverse();
        let shape: Option<Vec<usize>> = dimensions.iter().map(|&d| usize::try_from(d).ok()).collect();
        let sized = shape.and_then(|shape| Some((dtype.bytes_for(&shape)?, shape)));
        let row = dimensions.last().map_or(1, |&d| d as usize);
        let block = dtype.block_values();
        if !row.is_multiple_of(block) {
            return Err(GgufProblem::PartialBlock { name, row, block, dtype: dtype.name() });
        }
        let Some((bytes, shape)) = sized else {
            return Err(GgufProblem::ShapeOverflow { name, shape: dimensions });
        };
        if !offset.is_multiple_of(alignment) {
            return Err(GgufProblem::Unaligned { name, offset, alignment });
        }
        let end = data_start as u128 + u128::from(offset) + bytes as u128;
        if end > found as u128 {
            return Err(GgufProblem::OutOfRange { name, end, found });
        }
        Ok(TensorInfo { name, dtype, shape, start: data_start + offset as usize, bytes })
    }
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8]> {
        let end = self.at as u128 + u128::from(n);
        match usize::try_from(end).ok().and_then(|end| self.file.get(self.at..end)) {
            Some(bytes) => {
                self.at += bytes.len();
                Ok(bytes)
            }
            None => Err(GgufProblem::Truncated { what: what.into(), end, found: self.file.len() }),
        }
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(*self.take(4, what)?.first_chunk().expect("4 bytes")))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(*self.take(8, what)?.first_chunk().expect("8 bytes")))
    }

    /// Where a text is; an error where it is not UTF-8.
    fn text(&mut self, what: &str) -> Result<Range<usize>> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        match std::str::from_utf8(bytes) {
            Ok(_) => Ok(self.at - bytes.len()..self.at),
            Err(_) => Err(GgufProblem::NotUtf8 { what: what.into() }),
        }
    }

    /// A text of limited length.
    fn name(&mut self, what: &str, most: usize) -> Result<String> {
        let length = u64::from_le_bytes(*self.take(8, what)?.first_chunk().expect("8 bytes"));
        if length > most as u64 {
            return Err(GgufProblem::TooLong { what: what.into(), found: length, most });
        }
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| GgufProblem::NotUtf8 { what: what.into() })
    }

    fn value(&mut self, key: &str) -> Result<Value> {
        let what = format!("metadata `{key}`");
        let kind = self.u32(&what)?;
        let unknown = |kind| GgufProblem::UnknownKind { key: key.into(), kind };
        match kind {
            TEXT => Ok(Value::Text(self.text(&what)?)),
            LIST => {
                let (kind, count) = (self.u32(&what)?, self.u64(&what)?);
                let start = self.at;
                match (kind, size_of_kind(kind)) {
                    (LIST, _) => return Err(GgufProblem::NestedList { key: key.into() }),
                    (TEXT, _) => {
                        // each has its length in the file, so that a false count ends there
                        for _ in 0..count {
                            self.text(&what)?;
                        }
                    }
                    (_, Some(size)) => {
                        self.take(count.saturating_mul(size as u64), &what)?;
                    }
                    (_, None) => return Err(unknown(kind)),
                }
                Ok(Value::List(List { kind, count: count as usize, at: start..self.at }))
            }
            _ => {
                let size = size_of_kind(kind).ok_or_else(|| unknown(kind))?;
                let bytes = self.take(size as u64, &what)?;
                plain(kind, bytes).ok_or_else(|| unknown(kind))
            }
        }
    }

    fn tensor(&mut self) -> Result<RawTensor> {
        let name = self.name("the name of a tensor", MAX_NAME)?;
        let what = format!("the entry of tensor `{name}`");
        let n = self.u32(&what)?;
        if !(1..=MAX_DIMENSIONS).contains(&n) {
            return Err(GgufProblem::Dimensions { name, found: n });
        }
        let dimensions = (0..n).map(|_| self.u64(&what)).collect::<Result<Vec<u64>>>()?;
        Ok(RawTensor { name, dimensions, kind: self.u32(&what)?, offset: self.u64(&what)? })
    }
}

impl List {
    /// Number of values.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The texts of a list of texts in the bytes of its file; `None` for another list.
    pub(super) fn texts<'a>(&self, file: &'a [u8]) -> Option<Vec<&'a str>> {
        if self.kind != TEXT {
            return None;
        }
        let mut r = Reader { file: file.get(..self.at.end)?, at: self.at.start };
        let text = |_| {
            let at = r.text("").ok()?;
            std::str::from_utf8(&file[at]).ok()
        };
        (0..self.count).map(text).collect()
    }

    /// The values of a list of numbers or truth values; `None` for a list of texts.
    pub(super) fn values(&self, file: &[u8]) -> Option<Vec<Value>> {
        let size = size_of_kind(self.kind)?;
        file.get(self.at.clone())?.chunks_exact(size).map(|b| plain(self.kind, b)).collect()
    }
}
