//! A model with changed weights, written as a Hugging Face folder: same shards, same order of tensors, same dtypes, all
//! other files copied. A GGUF file becomes such a folder. Quantised weights are written in BF16. Weights are streamed: one tensor is in memory at a time. Arithmetic is f32, rounded once.

use crate::atomic::{self, AtomicDir, Output};
use crate::checkpoint::{DType, SINGLE_FILE, SafetensorsWriter, TensorRef, TensorSpec};
use crate::config::CONFIG_FILE;
use crate::family::TensorNames;
use crate::layer_weight::transposed;
use crate::{Checkpoint, Error, ModelConfig, Result, input, manifest};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Shape and values of a tensor that the checkpoint does not hold.
pub type NewTensor = (Vec<usize>, Vec<f32>);

/// Where the changes come from. Tensors are named as in the task model (`bert.encoder.…`, `model.layers.…`), whatever
/// prefix the checkpoint uses.
pub trait MergeSource {
    /// An error of this source, or of the writing.
    type Error: From<Error>;

    /// Names of all tensors that change or are new, e.g. `model.layers.0.self_attn.q_proj.weight`.
    fn targets(&self) -> Vec<String>;

    /// Changes a tensor in place; `values` is row-major with this shape, also where the file has a weight the other way round (GPT-2's
    /// `Conv1D`).
    fn apply(&mut self, name: &str, shape: &[usize], values: &mut [f32]) -> std::result::Result<(), Self::Error>;

    /// True when a head that shares the embedding's weight follows every change of it, so that they stay one tensor.
    fn keeps_tie(&self) -> bool {
        false
    }

    /// Type of the changed tensors in the result; that of the original for `None`.
    fn dtype(&self) -> Option<DType> {
        None
    }

    /// Shape and values of a target that the checkpoint does not hold (a trained head on a base model); `None` when this
    /// source has no values of its own for it.
    fn new_tensor(&self, name: &str) -> std::result::Result<Option<NewTensor>, Self::Error> {
        let _ = name;
        Ok(None)
    }
}

/// A summary of the written files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MergeReport {
    /// Tensors that were changed.
    pub changed: usize,
    /// Tensors copied byte for byte.
    pub copied: usize,
    /// Tensors that the original did not hold.
    pub added: Vec<String>,
    /// Bytes of all weights.
    pub bytes: u64,
    /// True when an output layer shared with the embedding had to be written apart from it.
    pub untied: bool,
}

/// Writes the folder `out` (which must be absent or empty, unless it is to be replaced) from `ckpt` with the changes of `source`.
///
/// `config_updates` are set in the `config.json` of the result, e.g. `architectures` and `id2label` when a head is added.
/// Disk space is checked first and the folder appears only when it is complete. Errors: a target that the model does not
/// have, a changed weight that is not finite or does not fit its dtype, the disk.
pub fn write_merged<'a, E: From<Error>>(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    out: impl Into<Output<'a>>,
    config_updates: &Map<String, Value>,
    source: &mut dyn MergeSource<Error = E>,
) -> std::result::Result<MergeReport, E> {
    let out = out.into();
    out.check_folder("a model folder", CONFIG_FILE)?;
    let same = |a: &Path, b: &Path| a.canonicalize().is_ok_and(|a| b.canonicalize().is_ok_and(|b| a == b));
    if same(out.path, ckpt.root()) {
        let what = "is the folder that the model is read from: give another output".into();
        return Err(Error::NotFound { path: out.path.into(), what }.into());
    }
    let plan = Plan::new(ckpt, cfg, source)?;
    let own = ckpt.own_files()?;
    let others = if ckpt.is_gguf() { Vec::new() } else { other_files(ckpt.root())? };
    let copies: u64 = others.iter().filter_map(|f| fs::metadata(ckpt.root().join(f)).ok()).map(|m| m.len()).sum();
    atomic::ensure_space(out.path, plan.bytes() + copies + (1 << 20))?;

    let dir = AtomicDir::create(out)?;
    let mut report = MergeReport {
        changed: 0,
        copied: 0,
        added: plan.added.iter().map(|a| a.name.clone()).collect(),
        bytes: plan.bytes(),
        untied: plan.untied,
    };
    for (file, tensors) in &plan.files {
        write_shard(&dir.path().join(file), ckpt, &plan, file, tensors, source, &mut report)?;
    }
    if let Some(name) = ckpt.index_file() {
        atomic::write_json(dir.path().join(name), &plan.index(&ckpt.root().join(name))?)?;
    }
    for file in &others {
        let from = ckpt.root().join(file);
        // read and written, not copied: a read-only original must not make a read-only result
        let mut source = input::open(&from)?;
        atomic::write_file(dir.path().join(file), |to| std::io::copy(&mut source, to).map(drop))?;
    }
    for (name, contents) in &own {
        atomic::write_json(dir.path().join(name), contents)?;
    }
    let path = dir.path().join(CONFIG_FILE);
    // of weights that are no longer quantised
    let was_quantised = !ckpt.is_gguf() && ckpt.quantised().is_some() && path.exists();
    if !config_updates.is_empty() || plan.untied || was_quantised {
        let mut config = if path.exists() { crate::config::read_object(&path)? } else { Map::new() };
        config.remove("quantization_config");
        if plan.untied {
            config.insert("tie_word_embeddings".into(), json!(false));
        }
        config.extend(config_updates.clone());
        atomic::write_json(dir.path().join(CONFIG_FILE), &config)?;
    }
    manifest::write(dir.path())?;
    dir.commit()?;
    Ok(report)
}

/// A tensor of the result.
struct Item {
    /// Its name in the result.
    name: String,
    /// Its name in the task model.
    path: String,
    /// Its type in the result.
    dtype: DType,
    /// The original.
    from: TensorRef,
    changes: bool,
    /// The weight of a layer that is stored as (inputs, outputs).
    transposed: bool,
}

/// The type in which a tensor is written that does not change: its own, or BF16 for one that safetensors cannot hold.
fn kept(from: &TensorRef) -> DType {
    if from.dtype().is_quantised() { DType::BF16 } else { from.dtype() }
}

/// Dimensions of a tensor as it is written. Those of MXFP4 hold the matrices of experts the other way round than unquantised ones.
fn written_shape(from: &TensorRef) -> Vec<usize> {
    match *from.shape() {
        [experts, n, m] if from.dtype() == DType::Mxfp4 => vec![experts, m, n],
        ref shape => shape.to_vec(),
    }
}

/// A tensor that the original does not hold.
struct Added {
    name: String,
    spec: TensorSpec,
    /// Starts as this tensor (an output layer that was tied) or as the source's own values.
    from: Option<TensorRef>,
    values: Option<Vec<f32>>,
    changes: bool,
}

struct Plan {
    files: BTreeMap<String, Vec<Item>>,
    /// Written at the end of the last file.
    added: Vec<Added>,
    untied: bool,
}

impl Plan {
    fn new<E: From<Error>>(
        ckpt: &Checkpoint,
        cfg: Option<&ModelConfig>,
        source: &dyn MergeSource<Error = E>,
    ) -> std::result::Result<Plan, E> {
        let mut targets: BTreeSet<String> = source.targets().into_iter().collect();
        let names = TensorNames::of(ckpt, cfg)?;

        let mut files: BTreeMap<String, Vec<Item>> = BTreeMap::new();
        for (i, shard) in ckpt.files().iter().enumerate() {
            let file = if ckpt.is_gguf() { SINGLE_FILE } else { &shard.name };
            let items = files.entry(file.to_string()).or_default();
            // a shard may repeat a tensor that the index places elsewhere: only the one that counts is written
            for (stored, from) in ckpt.tensors_of(i) {
                let path = names.path(stored);
                let changes = targets.remove(&path);
                // tables that a model computes by itself
                if ckpt.is_gguf() && stored == from.name() {
                    continue;
                }
                let dtype = source.dtype().filter(|_| changes).unwrap_or(kept(&from));
                // a tied head that stands for the embedding is written as what it is
                let name = if names.stands_for_embedding(stored) { path.clone() } else { stored.to_string() };
                let transposed = path.strip_suffix(".weight").is_some_and(|path| names.is_transposed(path));
                items.push(Item { name, changes, path, dtype, from, transposed });
            }
        }
        let mut plan = Plan { files, added: Vec::new(), untied: false };
        if !source.keeps_tie() {
            plan.untie(cfg, &names, ckpt, &mut targets, source.dtype())?;
        }
        for path in targets {
            let Some((shape, values)) = source.new_tensor(&path)? else {
                let hint = "; the changes are for another model".to_string();
                return Err(Error::NoTensor { path: ckpt.root().into(), name: path, hint }.into());
            };
            let spec = TensorSpec { name: path.clone(), dtype: plan.dtype(), shape };
            plan.added.push(Added { name: path, spec, from: None, values: Some(values), changes: false });
        }
        // a head is found by transformers only when the backbone carries its prefix
        if plan.added.iter().any(|a| a.values.is_some()) {
            for item in plan.files.values_mut().flatten() {
                item.name.clone_from(&item.path);
            }
        }
        Ok(plan)
    }

    /// When the output layer shares the embedding's weight and only one of them changes, they must be written apart.
    fn untie(
        &mut self,
        cfg: Option<&ModelConfig>,
        names: &TensorNames,
        ckpt: &Checkpoint,
        targets: &mut BTreeSet<String>,
        dtype: Option<DType>,
    ) -> Result<()> {
        let Some((head, embedding)) = cfg.and_then(ModelConfig::tied_weights) else { return Ok(()) };
        let embedding_changes = self.files.values().flatten().any(|i| i.changes && i.path == embedding);
        let head_changes = targets.contains(&head);
        if names.has_head(ckpt) || !(embedding_changes || head_changes) {
            return Ok(());
        }
        targets.remove(&head);
        let from = ckpt.tensor(&names.stored(&embedding))?;
        let dtype = dtype.filter(|_| head_changes).unwrap_or(kept(&from));
        let spec = TensorSpec::new(&head, dtype, from.shape());
        self.added.push(Added { name: head, spec, from: Some(from), values: None, changes: head_changes });
        self.untied = true;
        Ok(())
    }

    /// The dtype of the model, for tensors that it gets in addition.
    fn dtype(&self) -> DType {
        let floats = self.files.values().flatten().map(|i| i.dtype).filter(|d| d.is_float());
        let mut floats: Vec<DType> = floats.collect();
        floats.sort_by_key(|d| d.name());
        let count = |d: DType| floats.iter().filter(|x| **x == d).count();
        floats.iter().copied().max_by_key(|d| count(*d)).unwrap_or(DType::F32)
    }

    fn bytes(&self) -> u64 {
        let old: usize = self.files.values().flatten().filter_map(|i| i.dtype.bytes_for(i.from.shape())).sum();
        let new: usize = self.added.iter().filter_map(|a| a.spec.dtype.bytes_for(&a.spec.shape)).sum();
        (old + new) as u64
    }

    fn last_file(&self) -> &str {
        self.files.last_key_value().map_or("", |(f, _)| f)
    }

    /// The index, with the entries of an earlier one that are not about tensors.
    fn index(&self, old: &Path) -> Result<Value> {
        let old = crate::config::read_object(old)?;
        let mut metadata = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
        metadata.insert("total_size".into(), json!(self.bytes()));
        let mut map: BTreeMap<&str, &str> = BTreeMap::new();
        for (file, items) in &self.files {
            map.extend(items.iter().map(|i| (i.name.as_str(), file.as_str())));
        }
        map.extend(self.added.iter().map(|a| (a.name.as_str(), self.last_file())));
        Ok(json!({ "metadata": metadata, "weight_map": map }))
    }
}

fn write_shard<E: From<Error>>(
    to: &Path,
    ckpt: &Checkpoint,
    plan: &Plan,
    file: &str,
    items: &[Item],
    source: &mut dyn MergeSource<Error = E>,
    report: &mut MergeReport,
) -> std::result::Result<(), E> {
    let last = file == plan.last_file();
    let added = if last { &plan.added[..] } else { &[] };
    let specs = items.iter().map(|i| TensorSpec::new(&i.name, i.dtype, &written_shape(&i.from)));
    let specs = specs.chain(added.iter().map(|a| a.spec.clone())).collect();
    let mut metadata = ckpt.files().iter().find(|s| s.name == file).map(|s| s.metadata.clone()).unwrap_or_default();
    metadata.entry("format".into()).or_insert("pt".into());

    let mut writer = SafetensorsWriter::create(to, &metadata, specs)?;
    for item in items {
        if item.changes {
            let mut values = item.from.to_f32()?;
            match item.transposed {
                false => change(source, &item.path, item.from.shape(), &mut values)?,
                true => {
                    let (m, n) = item.from.dims2()?;
                    let mut weight = transposed(&values, m, n);
                    change(source, &item.path, &[n, m], &mut weight)?;
                    values = transposed(&weight, n, m);
                }
            }
            writer.put_f32(&item.name, &values)?;
            report.changed += 1;
        } else {
            copy(&mut writer, &item.name, &item.from)?;
            report.copied += 1;
        }
        item.from.release();
    }
    for a in added {
        match (&a.from, &a.values) {
            (Some(from), _) if a.changes => {
                let mut values = from.to_f32()?;
                change(source, &a.name, from.shape(), &mut values)?;
                writer.put_f32(&a.name, &values)?;
            }
            (Some(from), _) => copy(&mut writer, &a.name, from)?,
            (None, values) => writer.put_f32(&a.name, values.as_deref().unwrap_or_default())?,
        }
    }
    Ok(writer.finish()?)
}

/// Writes a tensor as it is stored, or its values where these are in blocks or in another order.
fn copy(writer: &mut SafetensorsWriter, name: &str, from: &TensorRef) -> Result<()> {
    if from.is_plain() {
        return writer.put(name, from.bytes());
    }
    let mut values = from.to_f32()?;
    if let (&[_, n, m], DType::Mxfp4) = (from.shape(), from.dtype()) {
        values.par_chunks_exact_mut((n * m).max(1)).for_each(|w| w.copy_from_slice(&transposed(w, n, m)));
    }
    writer.put_f32(name, &values)
}

fn change<E: From<Error>>(
    source: &mut dyn MergeSource<Error = E>,
    path: &str,
    shape: &[usize],
    values: &mut [f32],
) -> std::result::Result<(), E> {
    source.apply(path, shape, values)?;
    match values.iter().any(|v| !v.is_finite()) {
        true => Err(Error::Tensor { name: path.into(), what: "NaN or infinite after merging".into() }.into()),
        false => Ok(()),
    }
}

/// Everything in a model folder but weights, caches and hidden files; relative paths.
fn other_files(root: &Path) -> Result<Vec<PathBuf>> {
    const WEIGHTS: [&str; 12] = [
        ".safetensors",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".gguf",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".index.json",
    ];
    fn walk(root: &Path, below: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(root.join(below))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = below.join(&name);
            if name.starts_with('.') || WEIGHTS.iter().any(|w| name.ends_with(w)) {
                continue;
            }
            // follows links: files in the hub cache are links
            if root.join(&path).is_dir() {
                if below.as_os_str().is_empty() && !entry.file_type()?.is_symlink() {
                    walk(root, &path, out)?;
                }
            } else {
                out.push(path);
            }
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk(root, Path::new(""), &mut out).map_err(|e| Error::io("read", root, e))?;
    out.sort();
    Ok(out)
}
