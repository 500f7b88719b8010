//! Tensors of a checkpoint as layers, with their shapes checked against the configuration.

mod convolution;
mod decoder;
mod encoder;
mod experts;
mod head;

use super::options::LoadOptions;
use super::parts::{Embedding, Norm, Offset, Projections};
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::kernels::activation::Act;
use crate::linear::Linear;
use crate::ops;
use crate::param::{Trainable, Vector};
use crate::products::Products;
use crate::tensor::Tensor;
use crate::weight::Weight;
use crate::{Error, Result};
use loram_io::config::{Activation, HeadLayer, Projections as Names};
use loram_io::family::TensorNames;
use loram_io::{Checkpoint, ModelConfig, TensorRef};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// The activation function of a configuration.
pub(super) fn act(a: Activation) -> Act {
    match a {
        Activation::Silu => Act::Silu,
        Activation::Gelu => Act::Gelu,
        Activation::GeluTanh => Act::GeluTanh,
        Activation::QuickGelu => Act::QuickGelu,
        Activation::Relu => Act::Relu,
        Activation::Tanh => Act::Tanh,
    }
}

/// Finds tensors by module path, whatever prefix the checkpoint uses.
pub(crate) struct Loader<'a> {
    ckpt: &'a Checkpoint,
    names: TensorNames,
    pub compute: Compute,
    products: Products,
    dropout: bool,
    /// Tensors that were asked for.
    used: RefCell<BTreeSet<String>>,
}

impl<'a> Loader<'a> {
    pub fn new(ckpt: &'a Checkpoint, cfg: &ModelConfig, options: &LoadOptions) -> Result<Loader<'a>> {
        let names = TensorNames::find(ckpt, cfg)?;
        let (compute, products, dropout) = (options.compute, options.products, options.dropout);
        Ok(Loader { ckpt, names, compute, products, dropout, used: RefCell::default() })
    }

    /// Dropout of probability `p` at place `index` of block (or other part) `part`, or none where the model runs without.
    pub fn dropout(&self, p: f64, part: usize, index: u64) -> Dropout {
        Dropout::model(if self.dropout { p } else { 0.0 }, part, index)
    }

    /// Returns whether `all-linear` omits this layer of a head: see [`TensorNames::omits`].
    pub fn omits(&self, layer: &HeadLayer) -> bool {
        self.names.omits(self.ckpt, layer)
    }

    /// Returns whether the checkpoint has this tensor of the task model.
    pub fn has(&self, name: &str) -> bool {
        self.ckpt.contains(&self.names.stored(name))
    }

    /// Returns whether the next-token head is the embedding; a note says so when the configuration ties them and the
    /// checkpoint has two different weights.
    pub fn shares_head(&self, cfg: &ModelConfig) -> Result<bool> {
        let shared = self.names.shares_head(self.ckpt, cfg)?;
        if let (false, Some((head, embedding))) = (shared, cfg.tied_weights()) {
            tracing::warn!(
                "tie_word_embeddings is set, but the checkpoint has a `{head}` that differs from `{embedding}`: they are not \
                 tied (set it to false in config.json)"
            );
        }
        Ok(shared)
    }

    /// Returns whether the checkpoint has this tensor of the task model in a quantised type.
    fn is_quantised(&self, name: &str) -> bool {
        self.ckpt.info(&self.names.stored(name)).is_some_and(|info| info.dtype.is_quantised())
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<TensorRef> {
        let stored = self.names.stored(name);
        let t = self.ckpt.tensor(&stored)?;
        self.used.borrow_mut().insert(stored.clone());
        if t.shape() != shape {
            return Err(Error::Shape { name: stored, found: t.shape().to_vec(), expected: shape.to_vec() });
        }
        Ok(t)
    }

    /// A note when blocks of the checkpoint have tensors that the model has no place for, as of transformers.
    pub fn report_unused(&self, cfg: &ModelConfig) {
        let blocks = match cfg {
            ModelConfig::Decoder(c) => c.modules.blocks,
            ModelConfig::Encoder(c) => c.modules.blocks,
        };
        let blocks = format!("{}{blocks}.", self.names.backbone());
        let used = self.used.borrow();
        let tables = cfg.names().tables;
        let unused = |name: &&str| {
            !used.contains(*name)
                && !tables.iter().any(|table| name.ends_with(table))
                && self.names.path(name).starts_with(&blocks)
        };
        let unused: Vec<&str> = self.ckpt.names().filter(unused).collect();
        if let [first, ..] = &unused[..] {
            let (n, path) = (unused.len(), self.ckpt.root().display());
            tracing::warn!(
                "{path}: {n} tensors of the blocks have no place in the model and are ignored, such as `{first}`: does config.json belong to these weights?"
            );
        }
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vector> {
        self.constant(name, len).map(Trainable::Frozen)
    }

    /// A vector that is never trained.
    fn constant(&self, name: &str, len: usize) -> Result<Tensor> {
        let values = self.tensor(name, &[len])?.to_f32()?;
        Ok(Tensor::from_f32(self.compute.exact(), 1, len, &values))
    }

    fn weight(&self, path: &str, rows: usize, cols: usize) -> Result<Weight> {
        let tensor = match self.names.is_transposed(path) {
            false => self.tensor(&format!("{path}.weight"), &[rows, cols])?,
            true => self.tensor(&format!("{path}.weight"), &[cols, rows])?.transposed()?,
        };
        Ok(Weight::from_tensor(&tensor)?.with_products(self.products))
    }

    /// `<path>.weight` (n, m) and, with `bias`, `<path>.bias` (n).
    pub fn linear(&self, path: String, n: usize, m: usize, bias: bool) -> Result<Linear> {
        let weight = self.weight(&path, n, m)?;
        let mut linear = Linear::frozen(path, weight);
        if bias {
            linear.bias = Some(self.vector(&format!("{}.bias", linear.path), n)?);
        }
        Ok(linear)
    }

    /// Projections of an input of width `m`, `widths` wide; `at` gives the paths of their layers.
    pub fn projections<const N: usize>(
        &self,
        names: &Names<N>,
        widths: [usize; N],
        m: usize,
        bias: bool,
        at: impl Fn(&str) -> String,
    ) -> Result<Projections<N>> {
        let linear = |name: &str, n: usize| self.linear(at(name), n, m, bias);
        match names {
            Names::Apart(names) => {
                let linears = names.iter().zip(widths).map(|(name, n)| linear(name, n)).collect::<Result<Vec<_>>>()?;
                Ok(Projections::Apart(linears.try_into().unwrap_or_else(|_| unreachable!("one for each name"))))
            }
            Names::Fused(name) => Ok(Projections::Fused(linear(name, widths.iter().sum())?, widths)),
        }
    }

    /// `<path>.weight` (rows, cols).
    /// `padding` is the id whose row gets no gradient.
    pub fn table(&self, path: String, rows: usize, cols: usize, padding: Option<u32>) -> Result<Embedding> {
        let weight = self.weight(&path, rows, cols)?;
        Ok(Embedding::new(path, Trainable::Frozen(weight.whole_on_gpu()), padding))
    }

    /// `<path>.weight` (len), which is stored minus `offset`.
    pub fn rms_norm(&self, path: String, len: usize, eps: f64, offset: f64) -> Result<Norm> {
        let weight = self.vector(&format!("{path}.weight"), len)?;
        let offset = match &weight {
            Trainable::Frozen(stored) if offset != 0.0 => {
                let constant = Tensor::from_f32(self.compute.exact(), 1, len, &vec![offset as f32; len]);
                let mut frozen = stored.copy();
                ops::add_assign(&mut frozen, &constant);
                Some(Offset { constant, frozen })
            }
            _ => None,
        };
        Ok(Norm { path, weight, bias: None, bias_is_fixed: false, eps, offset })
    }

    /// `<path>.weight` (len) and, with `bias`, `<path>.bias` (len).
    pub fn layer_norm(&self, path: String, len: usize, eps: f64, bias: bool) -> Result<Norm> {
        let weight = self.vector(&format!("{path}.weight"), len)?;
        let values = match bias {
            true => self.vector(&format!("{path}.bias"), len)?,
            false => Trainable::Frozen(Tensor::zeros(self.compute.exact(), 1, len)),
        };
        Ok(Norm { path, weight, bias: Some(values), bias_is_fixed: !bias, eps, offset: None })
    }
}
