//! One memory-mapped file of a checkpoint.

use super::header::{HeaderProblem, TensorInfo, parse_header};
use super::mapped::Mapped;
use super::tensor::{OpenFile, TensorRef};
use crate::gguf::GgufFile;
use crate::{Error, Result};
use loram_core::RowOrder;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

#[cfg(target_endian = "big")]
compile_error!("safetensors files are little-endian and read in place: big-endian machines are not supported");

/// One file of a checkpoint.
#[derive(Debug)]
pub struct Shard {
    /// Its path.
    pub path: PathBuf,
    /// Its name relative to the model folder, e.g. `model-00001-of-00003.safetensors`.
    pub name: String,
    /// `__metadata__` of a safetensors header.
    pub metadata: BTreeMap<String, String>,
    /// Its tensors in the order of their bytes.
    pub tensors: Vec<Arc<TensorInfo>>,
    map: Arc<Mapped>,
    file: Arc<OpenFile>,
}

impl Shard {
    pub(super) fn open(path: PathBuf, name: String) -> Result<Shard> {
        let file = crate::input::open(&path)?;
        let length = file.metadata().map_err(|e| Error::io("read", &path, e))?.len();
        let problem = |problem| Error::Header { file: path.clone(), problem };
        if length < 10 {
            return Err(problem(HeaderProblem::Truncated { found: length as usize }));
        }
        let map = Mapped::open(&file, &path)?;
        let header = parse_header(&map).map_err(problem)?;
        let tensors = header.tensors.into_iter().map(Arc::new).collect();
        let file = Arc::new(OpenFile { path: path.clone(), file });
        Ok(Shard { path, name, metadata: header.metadata, tensors, map: Arc::new(map), file })
    }

    /// The tensors of a GGUF file.
    pub(super) fn of_gguf(gguf: GgufFile, name: String) -> Shard {
        let tensors = gguf.header.tensors.into_iter().map(Arc::new).collect();
        Shard { path: gguf.path, name, metadata: BTreeMap::new(), tensors, map: gguf.map, file: gguf.file }
    }

    pub(super) fn tensor(&self, info: &Arc<TensorInfo>) -> TensorRef {
        TensorRef {
            map: self.map.clone(),
            file: self.file.clone(),
            info: info.clone(),
            format: None,
            memory: None,
            order: RowOrder::Plain,
            shift: 0.0,
            transposed: false,
        }
    }

    /// Its tensors in the order of their bytes.
    pub fn tensors(&self) -> impl Iterator<Item = TensorRef> + '_ {
        self.tensors.iter().map(|t| self.tensor(t))
    }
}
