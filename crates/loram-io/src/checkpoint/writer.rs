//! Streaming writer of safetensors files: the header is known first, then the tensors' bytes follow in its order.

use super::dtype::DType;
use super::header::encode_header;
use super::tensor::TensorRef;
use crate::atomic::AtomicFile;
use crate::{Error, Result};
use half::{bf16, f16};
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name.
    pub name: String,
    /// Element type in the file.
    pub dtype: DType,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of this name, type and shape.
    pub fn new(name: impl Into<String>, dtype: DType, shape: &[usize]) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: shape.to_vec() }
    }
}

/// `{"format": "pt"}`, which transformers and PEFT expect.
pub fn pt_metadata() -> BTreeMap<String, String> {
    BTreeMap::from([("format".into(), "pt".into())])
}

/// Writes one safetensors file tensor by tensor, atomically. Only one tensor is in memory at a time.
pub struct SafetensorsWriter {
    file: AtomicFile,
    specs: Vec<TensorSpec>,
    next: usize,
}

impl SafetensorsWriter {
    /// Writes the header for `specs`, in that order. Errors: a duplicate name, a shape without a size, the disk.
    pub fn create(
        path: impl AsRef<Path>,
        metadata: &BTreeMap<String, String>,
        specs: Vec<TensorSpec>,
    ) -> Result<SafetensorsWriter> {
        let mut names = std::collections::HashSet::new();
        let mut total = 0u64;
        for s in &specs {
            if !names.insert(s.name.as_str()) || s.name == "__metadata__" {
                return Err(Error::Tensor { name: s.name.clone(), what: "written twice, or a reserved name".into() });
            }
            total += spec_bytes(s)? as u64;
        }
        crate::atomic::ensure_space(path.as_ref(), total)?;
        let entries: Vec<_> = specs.iter().map(|s| (s.name.clone(), s.dtype, s.shape.clone())).collect();
        let mut file = AtomicFile::create(path)?;
        file.put(&encode_header(metadata, &entries))?;
        Ok(SafetensorsWriter { file, specs, next: 0 })
    }

    /// Writes the next tensor's bytes (little-endian, row-major). It must be the next one of the list.
    pub fn put(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let spec = self.expect(name)?;
        let expected = spec_bytes(spec)?;
        if bytes.len() != expected {
            let what =
                format!("{} bytes given, shape {:?} of {} takes {expected}", bytes.len(), spec.shape, spec.dtype);
            return Err(Error::Tensor { name: name.into(), what });
        }
        self.file.put(bytes)?;
        self.next += 1;
        Ok(())
    }

    /// Writes the next tensor from f32, rounded once (to nearest, ties to even) to the dtype it has in the file.
    /// A finite value beyond the range of F16 is an error: it would become infinite.
    pub fn put_f32(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let dtype = self.expect(name)?.dtype;
        let bytes = f32_to_bytes(values, dtype).map_err(|what| Error::Tensor { name: name.into(), what })?;
        self.put(name, &bytes)
    }

    /// Writes the next tensor as a copy of an existing one.
    pub fn copy(&mut self, tensor: &TensorRef) -> Result<()> {
        self.put(tensor.name(), tensor.bytes())?;
        tensor.release();
        Ok(())
    }

    /// Completes the file. An error when tensors are missing.
    pub fn finish(self) -> Result<()> {
        if let Some(missing) = self.specs.get(self.next) {
            return Err(Error::Tensor { name: missing.name.clone(), what: "announced but not written".into() });
        }
        self.file.commit()
    }

    fn expect(&self, name: &str) -> Result<&TensorSpec> {
        match self.specs.get(self.next) {
            Some(s) if s.name == name => Ok(s),
            other => {
                let next = other.map_or("nothing", |s| s.name.as_str());
                Err(Error::Tensor { name: name.into(), what: format!("written out of order: `{next}` comes next") })
            }
        }
    }
}

/// Writes tensors held in memory, ordered as the safetensors library does (wide types first, then by name), so that
/// every tensor is aligned and the same tensors give the same bytes.
pub fn write_safetensors(
    path: impl AsRef<Path>,
    metadata: &BTreeMap<String, String>,
    mut tensors: Vec<(TensorSpec, Cow<'_, [f32]>)>,
) -> Result<()> {
    tensors.sort_by(|a, b| b.0.dtype.bits().cmp(&a.0.dtype.bits()).then_with(|| a.0.name.cmp(&b.0.name)));
    let specs = tensors.iter().map(|t| t.0.clone()).collect();
    let mut writer = SafetensorsWriter::create(path, metadata, specs)?;
    for (spec, values) in &tensors {
        writer.put_f32(&spec.name, values)?;
    }
    writer.finish()
}

fn spec_bytes(s: &TensorSpec) -> Result<usize> {
    s.dtype.bytes_for(&s.shape).ok_or_else(|| Error::Tensor {
        name: s.name.clone(),
        what: format!("shape {:?} of {} has no representable size", s.shape, s.dtype),
    })
}

/// Rounds f32 values to the bytes of a floating-point dtype; the error says what is wrong.
pub(crate) fn f32_to_bytes(values: &[f32], dtype: DType) -> std::result::Result<Cow<'_, [u8]>, String> {
    const CHUNK: usize = 1 << 16;
    let narrow = |f: &(dyn Fn(f32) -> u16 + Sync)| {
        let mut out = vec![0u8; values.len() * 2];
        out.par_chunks_mut(CHUNK * 2).zip(values.par_chunks(CHUNK)).for_each(|(o, v)| {
            for (o, v) in o.chunks_exact_mut(2).zip(v) {
                o.copy_from_slice(&f(*v).to_le_bytes());
            }
        });
        out
    };
    match dtype {
        DType::F32 => Ok(Cow::Borrowed(bytemuck::cast_slice(values))),
        DType::BF16 => Ok(Cow::Owned(narrow(&|v| bf16::from_f32(v).to_bits()))),
        DType::F16 => {
            // 65520 is the first value that rounds to infinity
            if let Some(v) = values.par_iter().find_any(|v| v.is_finite() && v.abs() >= 65520.0) {
                return Err(format!("the value {v} is beyond the range of F16: write BF16 or F32"));
            }
            Ok(Cow::Owned(narrow(&|v| f16::from_f32(v).to_bits())))
        }
        DType::F64 => Ok(Cow::Owned(values.iter().flat_map(|v| (*v as f64).to_le_bytes()).collect())),
        other => Err(format!("floating-point values cannot be written as {other}")),
    }
}
