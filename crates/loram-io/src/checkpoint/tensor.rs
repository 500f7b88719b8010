//! A tensor inside a memory-mapped file.

use super::{DType, TensorInfo};
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use loram_core::{Source, WeightRef};
use memmap2::Mmap;
use rayon::prelude::*;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Elements per parallel task: large enough to hide the cost of a task, small enough to stay in the cache.
const CHUNK: usize = 1 << 16;

/// A tensor in a mapped safetensors file: no copy is made until it is converted. Cheap to clone.
///
/// The mapping is read-only; as with every mapped file, another program that truncates the file meanwhile ends ours.
#[derive(Clone)]
pub struct TensorRef {
    pub(crate) map: Arc<Mmap>,
    pub(crate) file: Arc<OpenFile>,
    pub(crate) info: Arc<TensorInfo>,
}

/// An open file, from which any thread may read anywhere.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub path: PathBuf,
    pub file: File,
}

impl OpenFile {
    /// Fills `out` from byte `at` on.
    fn read_at(&self, out: &mut [u8], at: usize) -> Result<()> {
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_exact_at(&self.file, out, at as u64);
        #[cfg(not(unix))]
        let read = {
            use std::io::{Read, Seek, SeekFrom};
            // a position of its own: threads do not move each other's
            File::open(&self.path).and_then(|mut f| {
                f.seek(SeekFrom::Initialization(at as u64))?;
                f.read_exact(out)
            })
        };
        read.map_err(|e| Error::io("read", &self.path, e))
    }
}

/// The elements of a tensor, read from its file instead of from the mapping.
#[derive(Debug)]
pub struct FileSource<'a> {
    tensor: &'a TensorRef,
    /// Takes bytes that are aligned for the type.
    values: fn(&[u8]) -> WeightRef<'_>,
}

impl Source for FileSource<'_> {
    type Error = Error;

    fn len(&self) -> usize {
        self.tensor.len()
    }

    fn fetch<'b>(&'b self, at: Range<usize>, buffer: &'b mut Vec<u64>) -> Result<WeightRef<'b>> {
        assert!(at.end <= self.len(), "{at:?} of {}", self.len());
        let t = self.tensor;
        let width = t.dtype().bits() / 8;
        let bytes = at.len() * width;
        buffer.resize(bytes.div_ceil(size_of::<u64>()).max(buffer.len()), 0);
        let out = &mut bytemuck::cast_slice_mut(buffer)[..bytes];
        t.file.read_at(out, t.info.start + at.start * width)?;
        Ok((self.values)(out))
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

    /// The stored bytes, little-endian, row-major. Their address may be misaligned for the element type.
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.info.start..self.info.start + self.info.bytes]
    }

    /// `(rows, cols)` of a 2-D tensor; an error that names the tensor and its shape otherwise.
    pub fn dims2(&self) -> Result<(usize, usize)> {
        match *self.shape() {
            [rows, cols] => Ok((rows, cols)),
            _ => Err(self.error(format!("expected a matrix (2-D), found shape {:?}", self.shape()))),
        }
    }

    /// The elements in place, when the dtype is F32 and the address is aligned.
    pub fn as_f32(&self) -> Option<&[f32]> {
        (self.dtype() == DType::F32).then(|| bytemuck::try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// The elements in place, when the dtype is BF16 and the address is aligned.
    pub fn as_bf16(&self) -> Option<&[bf16]> {
        (self.dtype() == DType::BF16).then(|| bytemuck::try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// The elements in place, when the dtype is F16 and the address is aligned.
    pub fn as_f16(&self) -> Option<&[f16]> {
        (self.dtype() == DType::F16).then(|| bytemuck::try_cast_slice(self.bytes()).ok()).flatten()
    }

    /// All elements in f32 (row-major), converted in parallel. F64 is rounded; integer and quantised types are an error.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        self.require_float()?;
        let mut out = vec![0.0; self.len()];
        self.read_f32(0..self.len(), &mut out)?;
        Ok(out)
    }

    /// Converts elements `range` (row-major positions) into `out`, which must have that length.
    pub fn read_f32(&self, range: Range<usize>, out: &mut [f32]) -> Result<()> {
        self.require_float()?;
        if range.start > range.end || range.end > self.len() || range.len() != out.len() {
            return Err(self.error(format!(
                "elements {range:?} asked for into a buffer of {}, the tensor has {}",
                out.len(),
                self.len()
            )));
        }
        let width = self.dtype().bits() / 8;
        let bytes = &self.bytes()[range.start * width..range.end * width];
        let dtype = self.dtype();
        if out.len() <= CHUNK {
            convert(dtype, bytes, out);
        } else {
            out.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * width)).for_each(|(o, b)| convert(dtype, b, o));
        }
        Ok(())
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

    /// An error that names the tensor when any element is NaN or infinite.
    pub fn check_finite(&self) -> Result<()> {
        self.require_float()?;
        let width = self.dtype().bits() / 8;
        let dtype = self.dtype();
        let (count, first) = self
            .bytes()
            .par_chunks(CHUNK * width)
            .enumerate()
            .map(|(i, b)| match non_finite(dtype, b) {
                (0, _) => (0, usize::MAX),
                (n, at) => (n, i * CHUNK + at),
            })
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

    /// The elements as they are in the file, for types that [`WeightRef`] has: the quickest way to see each once.
    pub fn source(&self) -> Option<FileSource<'_>> {
        let values: fn(&[u8]) -> WeightRef<'_> = match self.dtype() {
            DType::F32 => |b| WeightRef::F32(bytemuck::cast_slice(b)),
            DType::F16 => |b| WeightRef::F16(bytemuck::cast_slice(b)),
            DType::BF16 => |b| WeightRef::BF16(bytemuck::cast_slice(b)),
            _ => return None,
        };
        Some(FileSource { tensor: self, values })
    }

    /// Tells the system that these pages are not needed for now: they leave this process's resident memory and are read
    /// again from the page cache when touched. A hint: failure is ignored.
    pub fn release(&self) {
        #[cfg(unix)]
        if self.info.bytes > 0 {
            // SAFETY: the mapping is a read-only view of a file; dropped pages come back with the file's content.
            let _ = unsafe {
                self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.info.start, self.info.bytes)
            };
        }
    }

    pub(crate) fn error(&self, what: String) -> Error {
        Error::Tensor { name: self.name().to_string(), what }
    }

    fn require_float(&self) -> Result<()> {
        if self.dtype().is_float() {
            return Ok(());
        }
        Err(self.error(format!(
            "dtype {} holds no plain floating-point weights; F32, F16, BF16 and F64 are supported: use the unquantised checkpoint",
            self.dtype()
        )))
    }
}

fn convert(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => match bytemuck::try_cast_slice::<u8, f32>(bytes) {
            Ok(x) => out.copy_from_slice(x),
            Err(_) => each(bytes, out, f32::from_le_bytes),
        },
        DType::BF16 => match bytemuck::try_cast_slice::<u8, bf16>(bytes) {
            Ok(x) => x.convert_to_f32_slice(out),
            Err(_) => each(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
        },
        DType::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
            Ok(x) => x.convert_to_f32_slice(out),
            Err(_) => each(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
        },
        DType::F64 => each(bytes, out, |b| f64::from_le_bytes(b) as f32),
        other => unreachable!("{other} is refused before"),
    }
}

fn each<const N: usize>(bytes: &[u8], out: &mut [f32], f: impl Fn([u8; N]) -> f32) {
    for (o, b) in out.iter_mut().zip(bytes.chunks_exact(N)) {
        *o = f(b.try_into().expect("exact chunks"));
    }
}

/// Number of non-finite elements and position of the first: all exponent bits set.
fn non_finite(dtype: DType, bytes: &[u8]) -> (usize, usize) {
    fn scan<const N: usize>(bytes: &[u8], bad: impl Fn([u8; N]) -> bool) -> (usize, usize) {
        let bad = |b: &[u8]| bad(b.try_into().expect("exact chunks"));
        // counting has no branch, so it runs at memory speed; the position is looked for only when there is one
        match bytes.chunks_exact(N).map(|b| bad(b) as usize).sum() {
            0 => (0, usize::MAX),
            n => (n, bytes.chunks_exact(N).position(bad).unwrap_or(usize::MAX)),
        }
    }
    match dtype {
        DType::F32 => scan(bytes, |b| u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000),
        DType::BF16 => scan(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        DType::F16 => scan(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
        DType::F64 => scan(bytes, |b| !f64::from_le_bytes(b).is_finite()),
        other => unreachable!("{other} is refused before"),
    }
}
