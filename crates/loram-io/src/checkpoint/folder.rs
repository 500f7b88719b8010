//! The weights of a model folder: its files opened, and its tensors found by name.

use super::dtype::DType;
use super::header::TensorInfo;
use super::index::{IndexProblem, LAYOUTS, parse_index};
use super::load_in_4bit::LoadIn4Bit;
use super::no_safetensors::no_safetensors;
use super::packings::{Packed, Packing, packings};
use super::shard::Shard;
use super::tensor::TensorRef;
use super::wrappers::{self, Unwrapped, unwrap_names};
use crate::gguf::{GgufFile, folder_files, is_gguf, names};
use crate::{Error, Result};
use loram_core::{RowOrder, WeightFormat};
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The weights of a model folder. Opening maps the files and checks headers and index; no weight is
/// read but those that are stored down their columns (GPTQ, AWQ).
#[derive(Debug)]
pub struct Checkpoint {
    root: PathBuf,
    shards: Vec<Shard>,
    /// name → (shard, tensor in it)
    by_name: BTreeMap<String, (usize, usize)>,
    /// Name of the index file, of a checkpoint with shards.
    index: Option<String>,
    /// Weights that are packed, by name.
    packed: BTreeMap<String, PackedTensor>,
    /// Tensors whose rows are stored in another order, by name.
    orders: BTreeMap<String, RowOrder>,
    /// Tensors whose values are stored plus a constant, by name.
    shifts: BTreeMap<String, f32>,
    gguf: bool,
    /// How its weights were quantised when it was read.
    loaded_in_4bit: Option<LoadIn4Bit>,
}

/// A packed weight.
#[derive(Debug, Clone)]
struct PackedTensor {
    /// With the dimensions of the weight.
    info: Arc<TensorInfo>,
    format: Arc<dyn WeightFormat>,
    /// Its bytes, if they are not those of the file.
    memory: Option<Arc<Vec<u8>>>,
    /// Bytes of its tables.
    tables: usize,
}

impl Checkpoint {
    /// Opens a model folder: `model.safetensors` if there is one, else the shards of `model.safetensors.index.json` (or
    /// `diffusion_pytorch_model.…`, as diffusers calls them); or a GGUF file,
    /// whose tensors get the names that they have in a folder. Tensors
    /// are called as in a model that nothing wraps (`_orig_mod.`, `module.` and `base_model.model.` go, with a note).
    ///
    /// Errors name the file and the rule it breaks; pickled checkpoints are never opened.
    pub fn open(dir: impl AsRef<Path>) -> Result<Checkpoint> {
        let dir = dir.as_ref();
        if !dir.exists() {
            return Err(Error::NotFound { path: dir.into(), what: "no such model folder".into() });
        }
        if is_gguf(dir) {
            return Checkpoint::open_gguf(dir);
        }
        if dir.is_file() {
            return if dir.extension().is_some_and(|e| e == "safetensors") {
                Checkpoint::open_file(dir)
            } else {
                Err(Error::NotFound { path: dir.into(), what: "is a file; expected a model folder".into() })
            };
        }
        for (single, index) in LAYOUTS.map(|(single, index)| (dir.join(single), dir.join(index))) {
            if single.exists() {
                return Checkpoint::open_file(&single)?.unwrapped()?.packed(dir);
            }
            if index.exists() {
                return Checkpoint::open_sharded(dir, &index)?.unwrapped()?.packed(dir);
            }
        }
        Err(Error::Checkpoint { path: dir.into(), what: no_safetensors(dir) })
    }

    /// Opens one safetensors file, whatever its name.
    pub fn open_file(path: impl AsRef<Path>) -> Result<Checkpoint> {
        let path = path.as_ref();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let root = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let shard = Shard::open(path.to_path_buf(), name)?;
        let by_name = shard.tensors.iter().enumerate().map(|(i, t)| (t.name.clone(), (0, i))).collect();
        Ok(Checkpoint {
            root,
            shards: vec![shard],
            by_name,
            index: None,
            packed: BTreeMap::new(),
            orders: BTreeMap::new(),
            shifts: BTreeMap::new(),
            gguf: false,
            loaded_in_4bit: None,
        })
    }

    fn open_gguf(path: &Path) -> Result<Checkpoint> {
        let file = GgufFile::open(path)?;
        let names = names(&file)?;
        let (mut orders, mut shifts) = (BTreeMap::new(), BTreeMap::new());
        for t in &file.header.tensors {
            let order = names.order(&t.name);
            if !order.fits(t.shape[0]) {
                let what = format!("{} rows are not whole heads ({order:?}): the file is damaged", t.shape[0]);
                return Err(Error::Tensor { name: t.name.clone(), what });
            }
            if let Some(path) = names.path(&t.name).filter(|_| order != RowOrder::Plain) {
                orders.insert(path, order);
            }
            let shift = names.shift(&t.name);
            if let Some(path) = names.path(&t.name).filter(|_| shift != 0.0) {
                shifts.insert(path, shift);
            }
        }
        Ok(Checkpoint { orders, shifts, ..Checkpoint::of_gguf(file, |name| names.path(name)) })
    }

    /// The tensors of a GGUF file, called as `path` says or as in the file.
    pub(crate) fn of_gguf(file: GgufFile, path: impl Fn(&str) -> Option<String>) -> Checkpoint {
        let (root, name) = (file.path.clone(), file.path.file_name().map(|n| n.to_string_lossy().into_owned()));
        let named = |t: &TensorInfo| path(&t.name).unwrap_or_else(|| t.name.clone());
        let by_name = file.header.tensors.iter().enumerate().map(|(i, t)| (named(t), (0, i))).collect();
        let shards = vec![Shard::of_gguf(file, name.unwrap_or_default())];
        Checkpoint {
            root,
            shards,
            by_name,
            index: None,
            packed: BTreeMap::new(),
            orders: BTreeMap::new(),
            shifts: BTreeMap::new(),
            gguf: true,
            loaded_in_4bit: None,
        }
    }

    fn open_sharded(dir: &Path, index: &Path) -> Result<Checkpoint> {
        let text = crate::input::read_text(index)?;
        let problem = |problem| Error::Index { file: index.to_path_buf(), problem };
        let map = parse_index(&text).map_err(problem)?;

        let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (tensor, file) in &map {
            files.entry(file).or_default().push(tensor);
        }
        let mut shards = Vec::new();
        for (file, tensors) in &files {
            let path = dir.join(file);
            if !path.exists() {
                let (tensors, example) = (tensors.len(), tensors[0].to_string());
                return Err(problem(IndexProblem::MissingShard { file: file.to_string(), tensors, example }));
            }
            shards.push(Shard::open(path, file.to_string())?);
        }
        let mut by_name: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (s, shard) in shards.iter().enumerate() {
            for (i, t) in shard.tensors.iter().enumerate() {
                match map.get(&t.name) {
                    Some(file) if *file != shard.name => continue,
                    Some(_) => {}
                    None => {
                        if let Some(&(first, _)) = by_name.get(&t.name) {
                            let (tensor, first) = (t.name.clone(), shards[first].name.clone());
                            let second = shard.name.clone();
                            return Err(problem(IndexProblem::TwoShards { tensor, first, second }));
                        }
                    }
                }
                by_name.insert(t.name.clone(), (s, i));
            }
        }
        if let Some((tensor, file)) = map.iter().find(|(tensor, _)| !by_name.contains_key(*tensor)) {
            return Err(problem(IndexProblem::MissingTensor { tensor: tensor.clone(), file: file.clone() }));
        }
        Ok(Checkpoint {
            root: dir.to_path_buf(),
            shards,
            by_name,
            index: index.file_name().map(|name| name.to_string_lossy().into_owned()),
            packed: BTreeMap::new(),
            orders: BTreeMap::new(),
            shifts: BTreeMap::new(),
            gguf: false,
            loaded_in_4bit: None,
        })
    }

    /// The same checkpoint with names that wrappers have left nothing in. An error for two tensors of one name.
    fn unwrapped(mut self) -> Result<Checkpoint> {
        let Unwrapped { names, removed } = unwrap_names(self.by_name.keys().map(String::as_str));
        if removed.is_empty() {
            return Ok(self);
        }
        let mut by_name: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for (name, (stored, &at)) in names.into_iter().zip(&self.by_name) {
            if let Some((s, i)) = by_name.insert(name.to_string(), at) {
                let other = &self.shards[s].tensors[i].name;
                let what =
                    format!("tensors `{other}` and `{stored}` are both `{name}` of the model: remove one of them");
                return Err(Error::Checkpoint { path: self.root, what });
            }
        }
        tracing::warn!("{}: removed {} from the names of the tensors", self.root.display(), wrappers::list(&removed));
        self.by_name = by_name;
        Ok(self)
    }

    /// The same checkpoint with the packings that the configuration in a folder names.
    fn packed(self, dir: &Path) -> Result<Checkpoint> {
        let packings = packings(dir)?;
        self.with_packings(&packings.iter().map(|p| &**p).collect::<Vec<_>>())
    }

    /// The same checkpoint with tensors that one of these packings recognises as the weights that they hold, and without those of
    /// their tables.
    ///
    /// # Errors
    /// Tables that do not fit their tensor.
    pub fn with_packings(mut self, packings: &[&dyn Packing]) -> Result<Checkpoint> {
        let tensor = |name: &str| {
            let &(s, i) = self.by_name.get(name)?;
            Some(self.shards[s].tensor(&self.shards[s].tensors[i]))
        };
        let find = |(name, &(s, i)): (&String, &(usize, usize))| {
            let info = &self.shards[s].tensors[i];
            for packing in packings {
                let Some(packed) = packing.find(name, info, &tensor)? else { continue };
                let bytes = packed.bytes.as_ref().map_or(info.bytes, |bytes| bytes.len());
                let (values, format) = (packed.shape.iter().product::<usize>(), &packed.format);
                if !values.is_multiple_of(format.block_values()) || format.bytes_of(values) != bytes {
                    let what = format!("{bytes} bytes do not hold a weight {:?} in {}", packed.shape, format.name());
                    return Err(Error::Tensor { name: name.clone(), what });
                }
                return Ok(Some((name.clone(), packed)));
            }
            Ok(None)
        };
        let found: Vec<Result<Option<_>>> = self.by_name.par_iter().map(find).collect();
        for found in found {
            let Some((stored, packed)) = found? else { continue };
            self.put_packed(&stored, packed)?;
        }
        Ok(self)
    }

    /// Takes a weight in place of the tensor of this name and of those of its tables.
    fn put_packed(&mut self, stored: &str, packed: Packed) -> Result<()> {
        let Packed { name, dtype, shape, format, bytes: memory, tables, companions } = packed;
        let at = self.by_name[stored];
        let name = name.unwrap_or_else(|| stored.to_string());
        if name != stored {
            self.by_name.remove(stored);
            if self.by_name.insert(name.clone(), at).is_some() {
                let what = format!("is there beside `{stored}`, which holds the same weight: remove one of them");
                return Err(Error::Tensor { name, what });
            }
        }
        for companion in companions {
            self.by_name.remove(&companion);
        }
        let info = TensorInfo::clone(&self.shards[at.0].tensors[at.1]);
        let bytes = memory.as_ref().map_or(info.bytes, |memory| memory.len());
        let info = Arc::new(TensorInfo { dtype, shape, bytes, ..info });
        self.packed.insert(name, PackedTensor { info, format, memory, tables });
        Ok(())
    }

    /// The same checkpoint with quantised weights in place of some of its own, by name.
    pub(crate) fn with_packed(mut self, weights: Vec<(String, Packed)>, by: &LoadIn4Bit) -> Result<Checkpoint> {
        self.loaded_in_4bit = Some(by.clone());
        for (name, packed) in weights {
            self.put_packed(&name, packed)?;
        }
        Ok(self)
    }

    /// How its weights were quantised while it was read, if they were.
    pub fn loaded_in_4bit(&self) -> Option<&LoadIn4Bit> {
        self.loaded_in_4bit.as_ref()
    }

    /// A weight that is quantised, if any is: its name and type.
    pub fn quantised(&self) -> Option<(&str, DType)> {
        let type_of = |name: &str| self.info(name).map(|info| info.dtype);
        self.names().find_map(|name| Some((name, type_of(name).filter(|dtype| dtype.is_quantised())?)))
    }

    /// The tensors of one file that count, by name, in the order of their bytes.
    pub(crate) fn tensors_of(&self, file: usize) -> Vec<(&str, TensorRef)> {
        let mut own: Vec<(usize, &str)> =
            self.by_name.iter().filter(|(_, at)| at.0 == file).map(|(name, at)| (at.1, name.as_str())).collect();
        own.sort_unstable();
        let shard = &self.shards[file];
        own.into_iter().map(|(i, name)| (name, self.packed_or(name, shard, i))).collect()
    }

    /// The model folder, or the GGUF file.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// True for a GGUF file.
    pub fn is_gguf(&self) -> bool {
        self.gguf
    }

    /// True when the folder has an index and shards.
    pub fn is_sharded(&self) -> bool {
        self.index.is_some()
    }

    /// Name of the index file of a checkpoint with shards.
    pub fn index_file(&self) -> Option<&str> {
        self.index.as_deref()
    }

    /// Tensor names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> + '_ {
        self.by_name.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// True when there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The files of its folder beside the weights, for one that has no folder: those that a GGUF file stands for.
    pub(crate) fn own_files(&self) -> Result<Vec<(&'static str, serde_json::Value)>> {
        if self.gguf { folder_files(&self.root) } else { Ok(Vec::new()) }
    }

    /// True when a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// The header entry of a tensor.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        let stored = || self.by_name.get(name).map(|&(s, i)| &*self.shards[s].tensors[i]);
        self.packed.get(name).map(|p| &*p.info).or_else(stored)
    }

    /// A tensor by name; the error for a missing one lists similar names.
    pub fn tensor(&self, name: &str) -> Result<TensorRef> {
        match self.by_name.get(name) {
            Some(&(s, i)) => Ok(self.packed_or(name, &self.shards[s], i)),
            None => {
                let similar = loram_core::similar_name(name, self.names());
                let hint = similar.map(|n| format!("; the nearest name is `{n}`")).unwrap_or_default();
                Err(Error::NoTensor { path: self.root.clone(), name: name.to_string(), hint })
            }
        }
    }

    /// Tensor `i` of a shard, as the weight that it holds.
    fn packed_or(&self, name: &str, shard: &Shard, i: usize) -> TensorRef {
        let tensor = match self.packed.get(name) {
            Some(PackedTensor { info, format, memory, .. }) => {
                TensorRef { format: Some(format.clone()), memory: memory.clone(), ..shard.tensor(info) }
            }
            None => shard.tensor(&shard.tensors[i]),
        };
        let order = self.orders.get(name).copied().unwrap_or_default();
        TensorRef { order, shift: self.shifts.get(name).copied().unwrap_or(0.0), ..tensor }
    }

    /// Its files, in alphabetical order.
    pub fn files(&self) -> &[Shard] {
        &self.shards
    }

    /// Bytes of all weights, with their tables.
    pub fn total_bytes(&self) -> u64 {
        let tables: usize = self.packed.values().map(|p| p.tables).sum();
        self.names().filter_map(|name| self.info(name)).map(|info| info.bytes as u64).sum::<u64>() + tables as u64
    }
}
