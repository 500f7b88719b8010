//! A GGUF file with an adapter merged into its weights: the metadata and the untouched tensors of the base as they are, changed tensors
//! in a type of choice.

use super::file::GgufFile;
use super::lora::stored_rows;
use super::names::names;
use super::writer::{Metadata, Spec, Writer};
use crate::adapter::{Adapter, MergeOptions, merge_source};
use crate::checkpoint::DType;
use crate::merge::MergeSource;
use crate::{Checkpoint, Error, ModelConfig, Result, atomic};
use std::collections::BTreeSet;
use std::path::Path;

/// The entry that names the type of most tensors, and its values.
const FILE_TYPE: &str = "general.file_type";
const FILE_TYPES: [(DType, u32); 8] = [
    (DType::F32, 0),
    (DType::F16, 1),
    (DType::Q4_0, 2),
    (DType::Q4_1, 3),
    (DType::Q8_0, 7),
    (DType::Q5_0, 8),
    (DType::Q5_1, 9),
    (DType::BF16, 32),
];

/// The counts of a merged file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergedGguf {
    /// Tensors that were changed.
    pub changed: usize,
    /// Tensors copied byte for byte.
    pub copied: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// Writes the GGUF file `path` with an adapter merged into the model `ckpt`, which is a GGUF file too. Changed weights are written in
/// `dtype`: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0. One tensor is in memory at a time.
///
/// Errors: those of [`crate::adapter::merge_adapter`]; a base that is no GGUF file; a change of a tensor that the file does not have.
pub fn write_merged_gguf(
    ckpt: &Checkpoint,
    config: &ModelConfig,
    adapter: &Adapter,
    dtype: DType,
    path: &Path,
    options: MergeOptions,
) -> Result<MergedGguf> {
    let wrong = |what: String| Err(Error::Usage(what));
    if !ckpt.is_gguf() {
        let what = "is no GGUF file: merge into its folder (loram merge) and convert that with llama.cpp's convert_hf_to_gguf.py";
        return wrong(format!("{}: {what}", ckpt.root().display()));
    }
    let Some((_, file_type)) = FILE_TYPES.into_iter().find(|t| t.0 == dtype) else {
        return wrong(format!(
            "weights are merged into GGUF in F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1 or Q8_0, not {dtype}"
        ));
    };
    let file = GgufFile::open(ckpt.root())?;
    let names = names(&file)?;
    let adapter = adapter.checked_for(ckpt, config, options)?;
    let mut source = merge_source(ckpt, config, &adapter)?;
    let mut targets: BTreeSet<String> = source.targets().into_iter().collect();
    let mut items = Vec::new();
    for tensor in &file.header.tensors {
        let path = names.path(&tensor.name).filter(|path| targets.remove(path));
        let dtype = match &path {
            Some(_) if tensor.shape.last().is_some_and(|c| c.is_multiple_of(dtype.block_values())) => dtype,
            Some(_) => DType::F16,
            None => tensor.dtype,
        };
        let spec = Spec { name: tensor.name.clone(), dtype, shape: tensor.shape.clone() };
        items.push((path, spec, tensor));
    }
    if let Some(name) = targets.into_iter().next() {
        let hint =
            ": the file has no weight of its own for it, so that the change cannot be merged into a GGUF file".into();
        return Err(Error::NoTensor { path: ckpt.root().into(), name, hint });
    }
    let mut metadata = Metadata::default();
    for (key, at) in file.header.entries.iter().filter(|e| e.0 != FILE_TYPE) {
        metadata.raw(key, &file.map[at.clone()]);
    }
    metadata.whole(FILE_TYPE, file_type);
    let bytes = items.iter().map(|i| i.1.bytes().map(|b| b as u64)).sum::<Result<u64>>()?;
    atomic::ensure_space(path, bytes + file.head().len() as u64 + (1 << 20))?;
    let mut report = MergedGguf { changed: 0, copied: 0, bytes };
    let mut writer = Writer::create(path, &metadata, items.iter().map(|i| i.1.clone()).collect())?;
    for (path, _, tensor) in &items {
        let Some(path) = path else {
            writer.put(&file.map[tensor.start..tensor.start + tensor.bytes])?;
            report.copied += 1;
            continue;
        };
        let from = ckpt.tensor(path)?;
        let mut values = from.to_f32()?;
        source.apply(path, &tensor.shape, &mut values)?;
        let shift = names.shift(&tensor.name);
        if shift != 0.0 {
            values.iter_mut().for_each(|x| *x += shift);
        }
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::Tensor { name: path.clone(), what: "NaN or infinite after merging".into() });
        }
        let rows = tensor.shape[0];
        let stored = stored_rows(&values, rows, values.len().checked_div(rows).unwrap_or(0), names.order(&tensor.name));
        writer.put_f32(&stored)?;
        from.release();
        report.changed += 1;
    }
    writer.finish()?;
    Ok(report)
}
