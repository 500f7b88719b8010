//! The checksum of a checkpoint's content.

use super::folder::Checkpoint;
use super::tensor::TensorRef;
use crate::Result;
use crate::checksum::{hex, sha256};
use crate::config::CONFIG_FILE;
use crate::gguf::{GgufFile, is_gguf};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// The tensors of a checkpoint, to compute their checksum on any thread.
pub struct Content(Vec<TensorRef>);

impl Checkpoint {
    /// Its content, for a checksum.
    pub fn content(&self) -> Content {
        Content(self.files().iter().flat_map(|f| f.tensors()).collect())
    }
}

/// The checksum of what is beside the weights in a model: that of `config.json`, or of a GGUF file's header. Errors: the file
/// cannot be read.
pub fn settings_sha256(model: &Path) -> Result<String> {
    match is_gguf(model) {
        true => Ok(hex(Sha256::digest(GgufFile::open(model)?.head()))),
        false => sha256(&model.join(CONFIG_FILE)),
    }
}

impl Content {
    /// SHA-256 over names, types, shapes and bytes of all tensors, whatever shards they are in, in lower-case hexadecimal
    /// digits. Reads every byte from the files, on all threads or, in the background, on this one. Errors: a file cannot
    /// be read.
    pub fn sha256(mut self, parallel: bool) -> Result<String> {
        self.0.sort_by(|a, b| a.name().cmp(b.name()));
        let sums: Vec<String> = match parallel {
            true => self.0.par_iter().map(of_tensor).collect::<Result<_>>()?,
            false => self.0.iter().map(of_tensor).collect::<Result<_>>()?,
        };
        Ok(hex(Sha256::digest(sums.concat())))
    }
}

fn of_tensor(tensor: &TensorRef) -> Result<String> {
    let mut hash = Sha256::new();
    hash.update(format!("{} {} {:?}\n", tensor.name(), tensor.dtype(), tensor.shape()));
    let mut buffer = vec![0; PIECE.min(tensor.info.bytes)];
    let mut at = 0;
    while at < tensor.info.bytes {
        let piece = PIECE.min(tensor.info.bytes - at);
        tensor.read_at(&mut buffer[..piece], at)?;
        hash.update(&buffer[..piece]);
        at += piece;
    }
    Ok(hex(hash.finalize()) + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::{DType, SafetensorsWriter, TensorSpec, pt_metadata};
    use super::*;

    #[test]
    fn it_follows_the_content_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sum = |name: &str, tensors: &[(&str, &[f32])]| {
            let path = dir.path().join(name);
            let specs = tensors.iter().map(|(n, v)| TensorSpec::new(*n, DType::F32, &[v.len()])).collect();
            let mut w = SafetensorsWriter::create(&path, &pt_metadata(), specs).unwrap();
            tensors.iter().for_each(|(n, v)| w.put_f32(n, v).unwrap());
            w.finish().unwrap();
            let file = Checkpoint::open_file(&path).unwrap();
            let sum = file.content().sha256(true).unwrap();
            assert_eq!(sum, file.content().sha256(false).unwrap());
            sum
        };
        let first = sum("a", &[("x", &[1.0, 2.0]), ("y", &[3.0])]);
        assert_eq!(first, sum("b", &[("y", &[3.0]), ("x", &[1.0, 2.0])]), "the order of the file");
        assert_ne!(first, sum("c", &[("x", &[1.0, 2.5]), ("y", &[3.0])]));
        assert_ne!(first, sum("d", &[("z", &[1.0, 2.0]), ("y", &[3.0])]));
    }
}
