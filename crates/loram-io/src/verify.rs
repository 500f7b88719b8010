//! Checks of an adapter against its own recipe and against a base model: whether its initialisation can be reproduced bit
//! for bit, and whether this is the base that it was initialised on.

use crate::adapter::{ADAPTER_CONFIG, Adapter, AdapterForm, RECIPE_FILE, Recipe};
use crate::family::TensorNames;
use crate::init::{InitWeight, recompute};
use crate::manifest::{self, State};
use crate::{Checkpoint, ModelConfig, Result};
use loram_core::{LayerRecipe, SchemeSpec, Statistic, from_recipe};
use serde::Serialize;
use std::path::Path;

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// Not as it should be.
    Failed,
    /// There was nothing to compare with; the detail says what would be needed.
    Skipped,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// Name of the check.
    pub name: &'static str,
    /// How it went.
    pub outcome: Outcome,
    /// Numbers and reasons, in a line.
    pub detail: String,
}

/// All checks of an adapter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// The checks, in order.
    pub checks: Vec<Check>,
    /// True when no check failed.
    pub passed: bool,
}

/// Verifies a folder: its files against its manifest, and then the adapter in it as [`verify`] does. A checkpoint of full
/// fine-tuning has a manifest only.
pub fn verify_folder(dir: &Path, base: Option<(&Checkpoint, Option<&ModelConfig>)>) -> Result<Verification> {
    let name = "manifest";
    let files = match manifest::state(dir) {
        State::Whole(n) => Check { name, outcome: Outcome::Passed, detail: format!("{n} files, as they were written") },
        State::Unlisted => {
            let detail = format!("no {}: the folder was written by another program", manifest::MANIFEST);
            Check { name, outcome: Outcome::Skipped, detail }
        }
        State::Damaged(detail) => Check { name, outcome: Outcome::Failed, detail },
    };
    let alone = files.outcome == Outcome::Passed && !dir.join(ADAPTER_CONFIG).exists();
    if alone || files.outcome == Outcome::Failed {
        return Ok(Verification { passed: files.outcome == Outcome::Passed, checks: vec![files] });
    }
    let mut all = verify(&Adapter::read(dir)?, base)?;
    all.checks.insert(0, files);
    Ok(all)
}

/// Verifies an adapter; `base` is the model that it was initialised on, if available, with its configuration if it is of a
/// known architecture. Reading problems are errors, all else is a check that failed.
pub fn verify(adapter: &Adapter, base: Option<(&Checkpoint, Option<&ModelConfig>)>) -> Result<Verification> {
    let names = base.map(|(ckpt, cfg)| TensorNames::of(ckpt, cfg)).transpose()?;
    let base = base.map(|b| b.0).zip(names.as_ref());
    let mut checks = vec![Check {
        name: "files",
        outcome: Outcome::Passed,
        detail: format!("{} layers, shapes and ranks agree with adapter_config.json", adapter.layers.len()),
    }];
    let Some(recipe) = &adapter.recipe else {
        let detail = format!("no {RECIPE_FILE}: the adapter was made by another program");
        checks.push(Check { name: "recipe", outcome: Outcome::Skipped, detail });
        return Ok(Verification { checks, passed: true });
    };
    checks.push(start_check(adapter, base)?);
    match (&recipe.base, base) {
        (Some(own), Some((ckpt, names))) => {
            let detail = format!("the weights of {} layers are those of the initialisation", own.layers.len());
            checks.push(match own.verify(ckpt, Some(names)) {
                Ok(()) => Check { name: "base", outcome: Outcome::Passed, detail },
                Err(e) => Check { name: "base", outcome: Outcome::Failed, detail: e.to_string() },
            });
            let from_data = SchemeSpec::parse(&recipe.scheme, &recipe.options)?.statistic() != Statistic::None;
            if !from_data && checks.iter().all(|c| c.outcome != Outcome::Failed) {
                checks.push(again_check(recipe, adapter.config.use_rslora, (ckpt, names))?);
            }
        }
        (None, Some(_)) => {
            let detail = format!("{RECIPE_FILE} does not say which weights the adapter was initialised on");
            checks.push(Check { name: "base", outcome: Outcome::Skipped, detail });
        }
        (_, None) => {
            let detail = "no base model given (--base)".into();
            checks.push(Check { name: "base", outcome: Outcome::Skipped, detail });
        }
    }
    let passed = checks.iter().all(|c| c.outcome != Outcome::Failed);
    Ok(Verification { checks, passed })
}

/// Checks that the initialisation that the recipe reproduces is the one in the file.
fn start_check(adapter: &Adapter, base: Option<(&Checkpoint, &TensorNames)>) -> Result<Check> {
    let name = "start";
    let Some(recipe) = &adapter.recipe else {
        return Ok(Check { name, outcome: Outcome::Skipped, detail: String::new() });
    };
    let (mut equal, mut untrained, mut other) = (0, 0, 0);
    for (path, w) in &adapter.layers {
        let Some(layer) = recipe.layers.get(path) else { continue };
        // LoRAM's β says it all, also where its gain tracks a scheme that needs data
        if SchemeSpec::parse(&layer.scheme, &recipe.options)?.info().statistic != Statistic::None {
            let detail =
                format!("`{}` initialises from calibration data, which the recipe does not hold", layer.scheme);
            return Ok(Check { name, outcome: Outcome::Skipped, detail });
        }
        if (layer.n, layer.m) != (w.n, w.m) || layer.r > w.r {
            let detail = format!(
                "layer `{path}`: the recipe is for ({}, {}) at rank {}, the file holds ({}, {}) at rank {}",
                layer.n, layer.m, layer.r, w.n, w.m, w.r
            );
            return Ok(Check { name, outcome: Outcome::Failed, detail });
        }
        let init = match (from_recipe(layer), base) {
            (Some(init), _) => init,
            (None, Some((ckpt, names))) => {
                let weight = InitWeight::find(ckpt, names, path)?;
                recompute(layer, recipe, adapter.config.use_rslora, weight)?.factors
            }
            (None, None) => {
                let detail = format!("`{}` initialises from the base's weights: give --base", layer.scheme);
                return Ok(Check { name, outcome: Outcome::Skipped, detail });
            }
        };
        if w.same_bits(&init) {
            untrained += 1;
        } else if recipe.form == AdapterForm::Plain && w.r == 2 * layer.r {
            if w.native(&init).is_none() {
                let detail = format!("layer `{path}`: the recipe's initialisation is not the one in the file");
                return Ok(Check { name, outcome: Outcome::Failed, detail });
            }
            equal += 1;
        } else {
            other += 1;
        }
    }
    Ok(match (equal, untrained, other) {
        (0, 0, _) => {
            let detail = "reproduced from the recipe; the file holds trained factors only, nothing to compare with";
            Check { name, outcome: Outcome::Skipped, detail: detail.into() }
        }
        (n, 0, _) => {
            let detail = format!("reproduced from the recipe, equal bit for bit in {n} layers");
            Check { name, outcome: Outcome::Passed, detail }
        }
        (_, n, _) => {
            let detail =
                format!("reproduced from the recipe, equal bit for bit in {n} layers, which are not trained yet");
            Check { name, outcome: Outcome::Passed, detail }
        }
    })
}

/// The scheme, run on the base once more, gives the recipe of every layer.
fn again_check(recipe: &Recipe, use_rslora: bool, base: (&Checkpoint, &TensorNames)) -> Result<Check> {
    let mut count = 0;
    for (path, layer) in &recipe.layers {
        let found = recompute(layer, recipe, use_rslora, InitWeight::find(base.0, base.1, path)?)?.recipe;
        if found != *layer {
            let beta = |r: &LayerRecipe| r.beta.map_or("none".into(), |b| b.to_string());
            let detail = format!(
                "layer `{path}`: the scheme gives β = {} on this base, the recipe has {}",
                beta(&found),
                beta(layer)
            );
            return Ok(Check { name: "scheme", outcome: Outcome::Failed, detail });
        }
        count += 1;
    }
    let detail = format!("run again on the base, it gives the recipe's numbers bit for bit in {count} layers");
    Ok(Check { name: "scheme", outcome: Outcome::Passed, detail })
}
