//! A tensor inside a memory-mapped file.

use super::dtype::DType;
use super::header::TensorInfo;
use super::mapped::Mapped;
use crate::{Error, Result};
use loram_core::{RowOrder, StoredWeight, WeightBytes, WeightFormat};
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Elements checked by one task: large enough to hide the cost of a task, small enough to stay in the cache.
const CHUNK: usize = 1 << 16;

/// A tensor in a mapped file: no copy is made until it is converted. Or one that was quantised or put into another order when the
/// checkpoint was opened, in memory. Cheap to clone.
///
/// The mapping is read-only; another program that truncates the file meanwhile ends ours, with a
/// message after [`report_lost_files`](super::report_lost_files).
#[derive(Clone)]
pub struct TensorRef {
    pub(crate) map: Arc<Mapped>,
    pub(crate) file: Arc<OpenFile>,
    pub(crate) info: Arc<TensorInfo>,
    /// The format of a packed weight; that of the element type for `None`.
    pub(super) format: Option<Arc<dyn WeightFormat>>,
    /// Its bytes, if they are not those of the file.
    pub(super) memory: Option<Arc<Vec<u8>>>,
    /// The order in which its rows are stored.
    pub(super) order: RowOrder,
    /// Its values are stored plus this.
    pub(super) shift: f32,
    /// It is the transpose of the tensor in its file.
    pub(crate) transposed: bool,
}

/// An open file, from which any thread may read anywhere.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub path: PathBuf,
    pub file: File,
}

impl OpenFile {
    /// Fills `out` from byte `at` on.
    pub(super) fn read_at(&self, out: &mut [u8], at: usize) -> Result<()> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_exact_at(&self.file, out, at as u64);
        #[cfg(windows)]
        let read = {
            let mut done = 0;
            loop {
                match std::os::windows::fs::FileExt::seek_read(&self.file, &mut out[done..], (at + done) as u64) {
                    Ok(_) if done == out.len() => break Ok(()),
                    Ok(0) => break Err(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(bytes) => done += bytes,
                    Err(e) => break Err(e),
                }
            }
        };
        read.map_err(|e| Error::io("read", &self.path, e))
    }
}

/// The bytes of a tensor, read from its file instead of from the mapping.
#[derive(Debug, Clone, Copy)]
pub struct FileBytes<'a> {
    tensor: &'a TensorRef,
}

impl WeightBytes for FileBytes<'_> {
    type Error = Error;

    fn len(&self) -> usize {
        self.tensor.info.bytes
    }

    fn fetch<'b>(&'b self, at: Range<usize>, buffer: &'b mut Vec<u8>) -> Result<&'b [u8]> {
        assert!(at.end <= self.len(), "bytes {at:?} of {}", self.len());
        if let Some(memory) = &self.tensor.memory {
            return Ok(&memory[at]);
        }
        buffer.resize(at.len().max(buffer.len()), 0);
        let out = &mut buffer[..at.len()];
        self.tensor.read_at(out, at.start)?;
        Ok(out)
    }
}

impl std::fmt::Debug for TensorRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TensorRef({}, {}, {:?})", self.name(), self.dtype(), self.shape())
    }
}

impl TensorRef {
    /// Name in the file.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Element type as stored.
    pub fn dtype(&self) -> DType {
        self.info.dtype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.info.shape.iter().product()
    }

    /// True when a dimension is 0.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored bytes, little-endian, row-major, with the rows in the order of the file. Their address may be misaligned for the element type.
    pub fn bytes(&self) -> &[u8] {
        match &self.memory {
            Some(memory) => memory,
            None => &self.map[self.info.start..self.info.start + self.info.bytes],
        }
    }

    /// Fills `out` with the stored bytes from `at` on, read from the file rather than from the mapping, whose pages would count as
    /// memory of this process.
    pub(super) fn read_at(&self, out: &mut [u8], at: usize) -> Result<()> {
        match &self.memory {
            Some(memory) => out.copy_from_slice(&memory[at..at + out.len()]),
            None => self.file.read_at(out, self.info.start + at)?,
        }
        Ok(())
    }

    /// True where the bytes are those of the elements in their order: neither in blocks, nor with rows in another order, nor shifted.
    pub fn is_plain(&self) -> bool {
        self.order == RowOrder::Plain && self.shift == 0.0 && !self.dtype().is_quantised()
    }

    /// `(rows, cols)` of a 2-D tensor; an error that names the tensor and its shape otherwise.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match *self.shape() {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(self.error(format!("expected a matrix (2-D), found shape {:?}", self.shape()))),
        }
    }

    /// The elements as a weight in its stored format, in place, with what a file adds to them. Dimensions but the last count as rows. An error that names
    /// the tensor when weights are not read from its type.
    pub fn stored(&self) -> Result<StoredWeight<'_>> {
        self.weight(self.bytes())
    }

    /// The same, read from the file piece by piece: the quickest way to see each element once.
    pub fn in_file(&self) -> Result<StoredWeight<'_, FileBytes<'_>>> {
        self.weight(FileBytes { tensor: self })
    }

    fn weight<B: WeightBytes>(&self, bytes: B) -> Result<StoredWeight<'_, B>> {
        let format = self.format()?;
        // the values of a vector in another order are rows
        let vector = self.order != RowOrder::Plain && self.shape().len() == 1;
        let cols = if vector { 1 } else { self.shape().last().copied().unwrap_or(1) };
        if !cols.is_multiple_of(format.block_values()) {
            let what = format!("rows of {cols} elements are not whole blocks of {}", format.block_values());
            return Err(self.error(format!("{what}, as {} needs: the file is damaged", self.dtype())));
        }
        let rows = self.len().checked_div(cols).unwrap_or(0);
        Ok(StoredWeight::new(format, bytes, rows, cols).with_order(self.order))
    }

    /// All elements in f32 (row-major), converted in parallel. F64 is rounded; integer types are an error.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        let mut values = self.stored()?.to_vec();
        if self.shift != 0.0 {
            values.iter_mut().for_each(|x| *x -= self.shift);
        }
        Ok(values)
    }

    /// Elements of an integer tensor (any integer type or BOOL) as i64; an error for other types.
    pub fn to_i64(&self) -> Result<Vec<i64>> {
        let b = self.bytes();
        macro_rules! ints {
            ($t:ty) => {
                b.chunks_exact(size_of::<$t>())
                    .map(|c| <$t>::from_le_bytes(c.try_into().expect("exact")) as i64)
                    .collect()
            };
        }
        Ok(match self.dtype() {
            DType::I64 => ints!(i64),
            DType::I32 => ints!(i32),
            DType::I16 => ints!(i16),
            DType::I8 => ints!(i8),
            DType::U64 => ints!(u64),
            DType::U32 => ints!(u32),
            DType::U16 => ints!(u16),
            DType::U8 | DType::Bool => ints!(u8),
            other => return Err(self.error(format!("expected integers, found dtype {other}"))),
        })
    }

    /// Matrix `i` of a tensor of three dimensions, in place: one of the experts of a mixture. An error for another tensor, and for one
    /// whose tables cannot be cut.
    pub fn matrix(&self, i: usize) -> Result<TensorRef> {
        let &[count, rows, cols] = self.shape() else {
            return Err(self.error(format!("expected matrices (3-D), found shape {:?}", self.shape())));
        };
        assert!(i < count, "matrix {i} of {count}");
        let first = i * rows * cols;
        let format = match &self.format {
            None => None,
            Some(format) => Some(format.cut_at(first).ok_or_else(|| {
                let name = format.name();
                self.error(format!("experts in one tensor are not supported in {name}: expected a tensor for each"))
            })?),
        };
        let whole = self.format()?;
        if !cols.is_multiple_of(whole.block_values()) || self.order != RowOrder::Plain {
            return Err(self.error(format!("rows of {cols} elements are not whole blocks of {}", whole.name())));
        }
        let (start, bytes) = (whole.bytes_of(first), whole.bytes_of(rows * cols));
        self.part(vec![rows, cols], start, bytes, format)
    }

    /// Rows of a matrix, in place. An error for another tensor, and for one whose tables cannot be cut.
    pub fn some_rows(&self, rows: Range<usize>) -> Result<TensorRef> {
        let (_, cols) = self.dims2()?;
        let (whole, first) = (self.format()?, rows.start * cols);
        let format = match &self.format {
            None => None,
            Some(format) => {
                let cut = format.cut_at(first);
                Some(cut.ok_or_else(|| self.error(format!("rows of a weight in {} cannot be cut", format.name())))?)
            }
        };
        let (start, bytes) = (whole.bytes_of(first), whole.bytes_of(rows.len() * cols));
        self.part(vec![rows.len(), cols], start, bytes, format)
    }

    /// A part of the tensor, of another shape.
    fn part(
        &self,
        shape: Vec<usize>,
        start: usize,
        bytes: usize,
        format: Option<Arc<dyn WeightFormat>>,
    ) -> Result<TensorRef> {
        if self.memory.is_some() {
            return Err(self.error("is held in memory: it cannot be cut".into()));
        }
        let info = TensorInfo { shape, start: self.info.start + start, bytes, ..TensorInfo::clone(&self.info) };
        Ok(TensorRef { info: Arc::new(info), format, ..self.clone() })
    }

    /// The transpose of a matrix of plain numbers, in memory in the same type. An error for a quantised one.
    pub fn transposed(&self) -> Result<TensorRef> {
        let (rows, cols) = self.dims2()?;
        if !self.is_plain() {
            return Err(self.error(format!("a weight in {} that is stored transposed is not supported", self.dtype())));
        }
        let size = self.format()?.block_bytes();
        let (from, mut bytes) = (self.bytes(), vec![0; self.bytes().len()]);
        bytes.par_chunks_mut((rows * size).max(1)).enumerate().for_each(|(j, row)| {
            for (i, to) in row.chunks_exact_mut(size).enumerate() {
                to.copy_from_slice(&from[(i * cols + j) * size..][..size]);
            }
        });
        self.release();
        let info = TensorInfo { shape: vec![cols, rows], ..TensorInfo::clone(&self.info) };
        Ok(TensorRef {
            info: Arc::new(info),
            memory: Some(Arc::new(bytes)),
            transposed: !self.transposed,
            ..self.clone()
        })
    }

    /// An error that names the tensor when any element is NaN or infinite in f32.
    pub fn check_finite(&self) -> Result<()> {
        let weight = self.stored()?;
        let of = |values: &mut Vec<f32>, start: usize| {
            values.resize(CHUNK.min(weight.len() - start), 0.0);
            weight.read(start..start + values.len(), values);
            match values.iter().filter(|x| !x.is_finite()).count() {
                0 => (0, usize::MAX),
                n => (n, start + values.iter().position(|x| !x.is_finite()).unwrap_or(0)),
            }
        };
        let (count, first) = (0..weight.len().div_ceil(CHUNK))
            .into_par_iter()
            .map_init(Vec::new, |values, i| of(values, i * CHUNK))
            .reduce(|| (0, usize::MAX), |x, y| (x.0 + y.0, x.1.min(y.1)));
        if count == 0 {
            return Ok(());
        }
        let mut index = Vec::new();
        let mut rest = first;
        for &d in self.shape().iter().rev() {
            index.insert(0, rest % d);
            rest /= d;
        }
        Err(self.error(format!("{count} NaN or infinite values, the first at {index:?}: the weights are damaged")))
    }

    /// Tells the system that these pages are not needed for now: they leave this process's resident memory and are read
    /// again from the page cache when touched. A hint: failure is ignored.
    pub fn release(&self) {
        #[cfg(unix)]
        if self.info.bytes > 0 && self.memory.is_none() {
            // SAFETY: the mapping is a read-only view of a file; dropped pages come back with the file's content.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.info.start, self.info.bytes)
            };
        }
    }

    pub(crate) fn error(&self, what: String) -> Error {
        Error::Tensor { name: self.name().to_string(), what }
    }

    /// The format of its values. An error that names the tensor when weights are not read from its type.
    pub fn format(&self) -> Result<&dyn WeightFormat> {
        if let Some(format) = &self.format {
            return Ok(&**format);
        }
        self.dtype().format().ok_or_else(|| {
            self.error(format!(
                "dtype {} holds no plain floating-point weights, and no tables beside it tell what it holds: use the unquantised checkpoint, or one in a supported quantisation",
                self.dtype()
            ))
        })
    }
}
