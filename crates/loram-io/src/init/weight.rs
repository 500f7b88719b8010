//! A layer's weight as an initialisation reads it.

use crate::family::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, Result, TensorRef};
use loram_core::{Initialization, LayerInput, LayerPlan, Observed, SchemeSpec, StoredWeight, initialize};

/// The weight of one layer: in a checkpoint, or in memory alone (a fresh head, say).
pub struct InitWeight<'a> {
    place: Place<'a>,
    /// It is the weight (rows, width) of an embedding.
    embedding: bool,
}

/// Where a weight is.
enum Place<'a> {
    /// In a checkpoint, as (n, m) or transposed.
    Stored(LayerWeight),
    /// In memory.
    Memory(StoredWeight<'a>),
}

impl<'a> InitWeight<'a> {
    /// A weight in memory alone.
    pub fn memory(weight: StoredWeight<'a>) -> InitWeight<'a> {
        InitWeight { place: Place::Memory(weight), embedding: false }
    }
}

impl InitWeight<'_> {
    /// The weight (n, m) in this tensor.
    pub fn tensor(tensor: TensorRef) -> InitWeight<'static> {
        InitWeight::stored(LayerWeight::plain(tensor))
    }

    /// The weight of a module of a checkpoint.
    pub(crate) fn find(ckpt: &Checkpoint, names: &TensorNames, path: &str) -> Result<InitWeight<'static>> {
        Ok(InitWeight::stored(LayerWeight::find(ckpt, names, path)?))
    }

    /// A weight in a checkpoint.
    pub(super) fn stored(weight: LayerWeight) -> InitWeight<'static> {
        InitWeight { place: Place::Stored(weight), embedding: false }
    }

    /// The same as the weight of an embedding, or not.
    #[must_use]
    pub fn of_embedding(self, embedding: bool) -> Self {
        InitWeight { embedding, ..self }
    }

    /// Initialises the layer. A scheme that reads no more than one pass over the weight gets it from the file piece by
    /// piece; others read it in place, and a transposed weight from a copy.
    ///
    /// Errors: those of [`initialize`]; a weight of another shape; the disk.
    pub fn initialize(
        &self,
        scheme: &SchemeSpec,
        plan: &LayerPlan,
        seed: u64,
        observed: Option<&Observed>,
    ) -> Result<Initialization> {
        let of = |input: LayerInput<'_>| {
            initialize(scheme, input.observed(observed).of_embedding(self.embedding), plan, seed)
        };
        let stored = match &self.place {
            Place::Memory(w) => return Ok(of(LayerInput::from(*w))?),
            Place::Stored(stored) => stored,
        };
        if scheme.one_pass() && stored.is_in_order(plan.n, plan.m) {
            let layer = LayerInput::read(scheme, &stored.tensor.in_file()?, plan, seed)?;
            return Ok(of(layer)?);
        }
        Ok(stored.with(plan.n, plan.m, |w| of(LayerInput::from(w)))??)
    }

    /// The tensor of a weight in a checkpoint.
    pub(super) fn in_checkpoint(&self) -> Option<&TensorRef> {
        match &self.place {
            Place::Stored(stored) => Some(&stored.tensor),
            Place::Memory(_) => None,
        }
    }
}
