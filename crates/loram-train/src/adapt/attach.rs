//! Adapters onto the layers of a model.

use crate::Result;
use crate::config::BaseMode;
use loram_nn::{Lora, Model};

/// Puts an adapter on a layer. Its initial product s·B₀A₀ is subtracted from the weight where `base` says so, and else in
/// every pass.
pub(super) fn attach(model: &mut Model, path: &str, mut lora: Lora, base: BaseMode) -> Result<()> {
    let in_weight = match base {
        BaseMode::Residual => true,
        BaseMode::Branch => false,
        BaseMode::Auto => model.holds_f32(path),
    };
    if let Some(initial) = lora.initial.take_if(|_| in_weight) {
        model.subtract_product(path, &initial, lora.scaling)?;
    }
    Ok(model.attach(path, lora)?)
}
