#![no_main]
//! Recipes (`loram.json`), and the layers that they reproduce.

use libfuzzer_sys::fuzz_target;
use loram_io::adapter::Recipe;
use std::path::Path;

fuzz_target!(|text: &str| {
    let Ok(recipe) = Recipe::parse(text, Path::new("loram.json")) else { return };
    for layer in recipe.layers.values() {
        // larger layers only take longer
        if layer.n.saturating_add(layer.m).saturating_mul(layer.r) < 1 << 14
            && let Some(init) = loram_core::from_recipe(layer)
        {
            assert_eq!((init.n, init.m, init.r), (layer.n, layer.m, layer.r));
        }
    }
});
