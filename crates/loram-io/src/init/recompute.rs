//! An initialisation computed again from a layer's recipe: the one way for reproducing, verifying, converting and resuming.

use super::weight::InitWeight;
use crate::adapter::Recipe;
use crate::{Error, Result};
use loram_core::{Factors, Initialization, LayerPlan, LayerRecipe, SchemeSpec, from_recipe};

/// The initial factors of a layer: from its recipe alone where that suffices, else from the weight that `weight` finds.
///
/// Errors: a scheme that reads the weight when there is none; those of [`recompute`].
pub(crate) fn recompute_factors<'w>(
    layer: &LayerRecipe,
    recipe: &Recipe,
    use_rslora: bool,
    weight: impl FnOnce() -> Result<Option<InitWeight<'w>>>,
) -> Result<Factors> {
    if let Some(factors) = from_recipe(layer) {
        return Ok(factors);
    }
    let Some(weight) = weight()? else {
        let what = "computes the initial factors from the base's weights, not from the recipe alone: give the base model with --model";
        return Err(Error::Usage(format!("layer `{}`: `{}` {what}", layer.path, layer.scheme)));
    };
    Ok(recompute(layer, recipe, use_rslora, weight)?.factors)
}

/// The scheme of a recipe's layer, run on its weight once more. Mapped pages of the weight are released.
///
/// Errors: those of [`InitWeight::initialize`].
pub(crate) fn recompute(
    layer: &LayerRecipe,
    recipe: &Recipe,
    use_rslora: bool,
    weight: InitWeight<'_>,
) -> Result<Initialization> {
    let spec = SchemeSpec::parse(&layer.scheme, &recipe.options)?;
    let LayerRecipe { path, n, m, r, scaling, .. } = layer.clone();
    let plan = LayerPlan { path, n, m, r, lora_alpha: lora_alpha(layer, use_rslora), scaling };
    let weight = weight.of_embedding(layer.embedding);
    let made = weight.initialize(&spec, &plan, layer.seed, None)?;
    if let Some(tensor) = weight.in_checkpoint() {
        tensor.release();
    }
    Ok(made)
}

/// `lora_alpha` that gives a layer its scaling.
pub(super) fn lora_alpha(layer: &LayerRecipe, use_rslora: bool) -> f64 {
    layer.scaling * if use_rslora { (layer.r as f64).sqrt() } else { layer.r as f64 }
}
