//! Writing of GGUF files, tensor by tensor.

use super::header::MAGIC;
use super::types;
use crate::atomic::AtomicFile;
use crate::checkpoint::{DType, f32_to_bytes};
use crate::{Error, Result};
use loram_core::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use std::path::Path;

const VERSION: u32 = 3;
const ALIGNMENT: usize = 32;

/// Entries of the metadata, in order.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    count: u64,
    bytes: Vec<u8>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

impl Metadata {
    /// An entry whose bytes, its kind included, come from another file.
    pub fn raw(&mut self, key: &str, value: &[u8]) {
        text(&mut self.bytes, key);
        self.bytes.extend(value);
        self.count += 1;
    }

    pub fn text(&mut self, key: &str, value: &str) {
        let mut bytes = 8u32.to_le_bytes().to_vec();
        text(&mut bytes, value);
        self.raw(key, &bytes);
    }

    pub fn float(&mut self, key: &str, value: f32) {
        self.raw(key, &[6u32.to_le_bytes(), value.to_le_bytes()].concat());
    }

    pub fn whole(&mut self, key: &str, value: u32) {
        self.raw(key, &[4u32.to_le_bytes(), value.to_le_bytes()].concat());
    }
}

/// A tensor to be written.
#[derive(Debug, Clone)]
pub(super) struct Spec {
    pub name: String,
    pub dtype: DType,
    /// Outermost first.
    pub shape: Vec<usize>,
}

impl Spec {
    pub fn bytes(&self) -> Result<usize> {
        let whole = self.shape.last().is_none_or(|cols| cols.is_multiple_of(self.dtype.block_values()));
        self.dtype.bytes_for(&self.shape).filter(|_| whole).ok_or_else(|| Error::Tensor {
            name: self.name.clone(),
            what: format!("shape {:?} cannot be stored as {}", self.shape, self.dtype),
        })
    }
}

/// A GGUF file being written; it appears under its name when it is finished.
pub(super) struct Writer {
    file: AtomicFile,
    specs: Vec<Spec>,
    next: usize,
}

impl Writer {
    /// Writes the header.
    pub fn create(path: &Path, metadata: &Metadata, specs: Vec<Spec>) -> Result<Writer> {
        let mut head = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
        head.extend((specs.len() as u64).to_le_bytes());
        head.extend(metadata.count.to_le_bytes());
        head.extend(&metadata.bytes);
        let mut offset = 0u64;
        for spec in &specs {
            text(&mut head, &spec.name);
            head.extend((spec.shape.len() as u32).to_le_bytes());
            spec.shape.iter().rev().for_each(|&d| head.extend((d as u64).to_le_bytes()));
            let kind = types::number(spec.dtype).ok_or_else(|| Error::Tensor {
                name: spec.name.clone(),
                what: format!("GGUF has no type {}", spec.dtype),
            })?;
            head.extend(kind.to_le_bytes());
            head.extend(offset.to_le_bytes());
            offset += (spec.bytes()? as u64).next_multiple_of(ALIGNMENT as u64);
        }
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        let mut file = AtomicFile::create(path)?;
        file.put(&head)?;
        Ok(Writer { file, specs, next: 0 })
    }

    /// Writes the next tensor as it is stored.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        let spec = &self.specs[self.next];
        assert_eq!(bytes.len(), spec.bytes()?, "bytes of {}", spec.name);
        self.file.put(bytes)?;
        self.file.put(&[0; ALIGNMENT][..bytes.len().next_multiple_of(ALIGNMENT) - bytes.len()])?;
        self.next += 1;
        Ok(())
    }

    /// Writes the next tensor from its values.
    pub fn put_f32(&mut self, values: &[f32]) -> Result<()> {
        let Spec { name, dtype, .. } = &self.specs[self.next];
        let wrong = |what| Error::Tensor { name: name.clone(), what };
        let bytes = match dtype {
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0
                if values.iter().any(|x| !x.is_finite()) =>
            {
                return Err(wrong("has NaN or infinite values".into()));
            }
            DType::Q4_0 => Q4_0::quantised(values).into(),
            DType::Q4_1 => Q4_1::quantised(values).into(),
            DType::Q5_0 => Q5_0::quantised(values).into(),
            DType::Q5_1 => Q5_1::quantised(values).into(),
            DType::Q8_0 => Q8_0::quantised(values).into(),
            plain => f32_to_bytes(values, *plain).map_err(wrong)?,
        };
        self.put(&bytes)
    }

    /// Syncs the file and moves it into place.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.next, self.specs.len(), "tensors written");
        self.file.commit()
    }
}
