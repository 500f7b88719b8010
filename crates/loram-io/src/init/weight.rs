//! A layer's weight as an initialisation reads it.

use crate::layer_weight::LayerWeight;
use crate::{Result, TensorRef};
use loram_core::{Initialization, LayerInput, LayerPlan, Observed, SchemeSpec, StoredWeight, initialize};

/// The weight of one layer: in a checkpoint, or in memory alone (a fresh head, say).
pub enum InitWeight<'a> {
    /// In a checkpoint, as (n, m) or transposed.
    Stored(LayerWeight),
    /// In memory.
    Memory(StoredWeight<'a>),
}

impl InitWeight<'_> {
    /// The weight (n, m) in this tensor.
    pub fn tensor(tensor: TensorRef) -> InitWeight<'static> {
        InitWeight::Stored(LayerWeight::plain(tensor))
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
        let stored = match self {
            InitWeight::Memory(w) => {
                return Ok(initialize(scheme, LayerInput::from(*w).observed(observed), plan, seed)?);
            }
            InitWeight::Stored(stored) => stored,
        };
        if scheme.one_pass() && stored.is_in_order(plan.n, plan.m) {
            let layer = LayerInput::read(scheme, &stored.tensor.in_file()?, plan, seed)?;
            return Ok(initialize(scheme, layer, plan, seed)?);
        }
        let in_memory = |w: StoredWeight<'_>| initialize(scheme, LayerInput::from(w).observed(observed), plan, seed);
        Ok(stored.with(plan.n, plan.m, in_memory)??)
    }

    /// The tensor of a weight in a checkpoint.
    pub(super) fn stored(&self) -> Option<&TensorRef> {
        match self {
            InitWeight::Stored(stored) => Some(&stored.tensor),
            InitWeight::Memory(_) => None,
        }
    }
}
