//! A linear layer with its adapter, and what its passes keep.

use crate::dropout::Dropout;
#[cfg(gpu)]
use crate::held::Held;
use crate::kernels::bf16::Kernel;
#[cfg(gpu)]
use crate::param::Params;
use crate::param::{Trainable, Vector};
use crate::products::Operand;
use crate::tensor::Tensor;
use crate::trained_rows::TrainedRows;
use crate::weight::Weight;
#[cfg(gpu)]
use std::ops::Range;
#[cfg(gpu)]
use std::sync::Arc;

/// y = x·Wᵀ + bias + s·(dropout(x)·Aᵀ·Bᵀ + bias of B) − s·x·A₀ᵀ·B₀ᵀ (2106.09685; the last term subtracts the
/// initial product of 2507.06558 from a base that must not change). W: (n, m).
#[derive(Debug)]
pub(crate) struct Linear {
    pub path: String,
    pub n: usize,
    pub m: usize,
    pub weight: Trainable<Weight>,
    pub bias: Option<Vector>,
    pub lora: Option<Lora>,
    /// Single rows of W that are trained.
    pub rows: Option<TrainedRows>,
}

/// The adapter of a linear layer: factors that are frozen or trained, A (r, m) and B (n, r).
#[derive(Debug)]
pub(crate) struct Lora {
    pub a: Vector,
    pub b: Vector,
    pub scaling: f64,
    /// Of B (`lora_bias`), (1, n).
    pub bias: Option<Vector>,
    /// On the input of A.
    pub dropout: Dropout,
    /// `(A₀, B₀)`: the frozen initial factors, whose product is subtracted.
    pub initial: Option<(Tensor, Tensor)>,
}

impl Lora {
    /// Returns whether anything of it is trained.
    pub fn trains(&self) -> bool {
        [Some(&self.a), Some(&self.b), self.bias.as_ref()].into_iter().flatten().any(|v| v.param().is_some())
    }

    /// The same adapter, for a second layer with the same weight.
    pub fn shared(&self) -> Lora {
        Lora {
            a: self.a.copied(),
            b: self.b.copied(),
            scaling: self.scaling,
            bias: self.bias.as_ref().map(Vector::copied),
            dropout: self.dropout,
            initial: self.initial.as_ref().map(|(a, b)| (a.copy(), b.copy())),
        }
    }
}

/// Activations that the backward pass of a linear layer needs beside its input.
#[derive(Debug)]
pub(crate) struct LinearSaved {
    /// dropout(x)·Aᵀ, (t, r).
    pub(super) h: Option<Tensor>,
    /// The same on a GPU, where layers with one input compute it together.
    #[cfg(gpu)]
    pub(super) columns: Option<Columns>,
}

/// scaling·x·Aᵀ of a layer, and −scaling·x·A₀ᵀ beside it, in a matrix with those of other layers.
#[cfg(gpu)]
#[derive(Debug)]
pub(crate) struct Columns {
    /// (t, Σ r) of all layers with this input.
    pub(super) all: Arc<Tensor>,
    pub(super) at: Range<usize>,
}

/// A layer in a backward pass.
pub(crate) struct Layer<'a> {
    pub linear: &'a Linear,
    pub saved: &'a LinearSaved,
    /// Of the loss by its output, (t, n).
    pub gradient: &'a Operand<'a>,
}

impl Linear {
    pub fn frozen(path: String, weight: Weight) -> Linear {
        let (n, m) = (weight.rows(), weight.cols());
        Linear { path, n, m, weight: Trainable::Frozen(weight), bias: None, lora: None, rows: None }
    }

    /// The same layer, whose frozen weight is not packed on a GPU: many passes over few rows use it.
    pub fn whole_on_gpu(mut self) -> Linear {
        self.weight = match self.weight {
            Trainable::Frozen(w) => Trainable::Frozen(w.whole_on_gpu()),
            trained => trained,
        };
        self
    }

    /// Returns whether any of its own parameters is trained.
    pub fn trains(&self) -> bool {
        let vector = |v: &Vector| v.param().is_some();
        self.weight.param().is_some()
            || self.bias.as_ref().is_some_and(vector)
            || self.lora.as_ref().is_some_and(Lora::trains)
            || self.rows.as_ref().is_some_and(|rows| vector(&rows.value))
    }

    /// W in the GPU's memory, where it is used with activations like `x`: (n, m), or wider.
    #[cfg(gpu)]
    pub(super) fn gpu_weight<'a>(&'a self, params: &'a Params, x: &Tensor) -> Held<'a> {
        match &self.weight {
            Trainable::Frozen(w) => w.on_gpu(x),
            Trainable::Param(id) => Held::Borrowed(params.value(*id)),
        }
    }

    /// The kernel of products with tensors like `x`, the adapter's included.
    pub fn kernel(&self, x: &Tensor) -> Option<Kernel> {
        match &self.weight {
            Trainable::Frozen(w) => w.kernel_for(x),
            Trainable::Param(_) => None,
        }
    }
}
