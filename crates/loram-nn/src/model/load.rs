//! Tensors of a checkpoint as layers, with their shapes checked against the configuration.

use super::LoadOptions;
use super::stack::Embedding;
use crate::dropout::Dropout;
use crate::linear::{Linear, Trainable, Vector};
use crate::ops::Norm;
use crate::tensor::{Compute, Tensor};
use crate::weight::Weight;
use crate::{Error, Result};
use loram_io::config::TensorNames;
use loram_io::{Checkpoint, ModelConfig, TensorRef};

/// Finds tensors by module path, whatever prefix the checkpoint uses.
pub(crate) struct Loader<'a> {
    ckpt: &'a Checkpoint,
    names: TensorNames,
    pub compute: Compute,
    dropout: bool,
}

impl<'a> Loader<'a> {
    pub fn new(ckpt: &'a Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Loader<'a>> {
        let names = TensorNames::find(ckpt, cfg)?;
        Ok(Loader { ckpt, names, compute: options.compute, dropout: options.dropout })
    }

    /// Dropout of probability `p` at a place of the model, or none where it was not asked for.
    pub fn dropout(&self, p: f64, part: usize, index: u64) -> Dropout {
        Dropout::model(if self.dropout { p } else { 0.0 }, part, index)
    }

    /// Whether the checkpoint has this tensor of the task model.
    pub fn has(&self, name: &str) -> bool {
        self.ckpt.contains(&self.names.stored(name))
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorRef> {
        let stored = self.names.stored(name);
        let t = self.ckpt.tensor(&stored)?;
        if t.shape() != shape {
            return Err(Error::Shape { name: stored, found: t.shape().to_vec(), expected: shape.to_vec() });
        }
        Ok(t)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vector> {
        let values = self.tensor(name, &[len])?.to_f32()?;
        Ok(Trainable::Frozen(Tensor::from_f32(self.compute.exact(), 1, len, &values)))
    }

    /// `<path>.weight` (n, m) and, with `bias`, `<path>.bias` (n).
    pub fn linear(&self, path: String, n: usize, m: usize, bias: bool) -> Result<Linear> {
        let weight = Weight::from_tensor(&self.tensor(&format!("{path}.weight"), &[n, m])?)?;
        let mut linear = Linear::frozen(path, weight);
        if bias {
            linear.bias = Some(self.vector(&format!("{}.bias", linear.path), n)?);
        }
        Ok(linear)
    }

    /// `<path>.weight` (rows, cols).
    pub fn table(&self, path: String, rows: usize, cols: usize) -> Result<Embedding> {
        let weight = Weight::from_tensor(&self.tensor(&format!("{path}.weight"), &[rows, cols])?)?;
        Ok(Embedding { path, weight: Trainable::Frozen(weight) })
    }

    pub fn rms_norm(&self, path: String, len: usize, eps: f64) -> Result<Norm> {
        Ok(Norm { weight: self.vector(&format!("{path}.weight"), len)?, bias: None, path, eps })
    }

    pub fn layer_norm(&self, path: String, len: usize, eps: f64) -> Result<Norm> {
        let weight = self.vector(&format!("{path}.weight"), len)?;
        let bias = Some(self.vector(&format!("{path}.bias"), len)?);
        Ok(Norm { path, weight, bias, eps })
    }
}
