//! Norms of the weights of adapted layers, read in place.

use crate::family::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, ModelConfig, Result};
use loram_core::{LayerPlan, StoredWeight, magnitude};

/// Norms of one layer's weight W.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WeightNorms {
    /// ‖W‖_F.
    pub frobenius: f64,
    /// ‖W‖₂, to about a thousandth.
    pub spectral: f64,
}

/// Computes ‖W‖_F of the layers' weights in the checkpoint, in one pass over them, in the order of `plans`; `None` for a layer
/// that the checkpoint does not have. Errors: see [`weight_norms`].
pub fn frobenius_norms<'a>(
    ckpt: &Checkpoint,
    cfg: &ModelConfig,
    plans: impl IntoIterator<Item = &'a LayerPlan>,
) -> Result<Vec<Option<f64>>> {
    of_each(ckpt, cfg, plans, |w| w.sums().1.sqrt())
}

/// Computes the norms of the layers' weights in the checkpoint, in the order of `plans`. `None` for a layer that the checkpoint does
/// not have: a randomly initialised head. Errors: a weight of another shape, or in an unsupported type.
pub fn weight_norms<'a>(
    ckpt: &Checkpoint,
    cfg: &ModelConfig,
    plans: impl IntoIterator<Item = &'a LayerPlan>,
) -> Result<Vec<Option<WeightNorms>>> {
    of_each(ckpt, cfg, plans, |w| WeightNorms {
        frobenius: w.sums().1.sqrt(),
        spectral: magnitude::spectral_norm(w, 1e-3),
    })
}

fn of_each<'a, T>(
    ckpt: &Checkpoint,
    cfg: &ModelConfig,
    plans: impl IntoIterator<Item = &'a LayerPlan>,
    measure: impl Fn(StoredWeight<'_>) -> T,
) -> Result<Vec<Option<T>>> {
    let names = TensorNames::find(ckpt, cfg)?;
    let one = |plan: &LayerPlan| {
        let Ok(weight) = LayerWeight::find(ckpt, &names, &plan.path) else { return Ok(None) };
        let found = weight.with(plan.n, plan.m, &measure)?;
        weight.tensor.release();
        Ok(Some(found))
    };
    plans.into_iter().map(one).collect()
}
