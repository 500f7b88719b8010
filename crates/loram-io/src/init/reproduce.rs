//! An initialisation reproduced from its recipe: from the recipe alone where the scheme allows it, otherwise with the
//! weights of the base.

use super::layers::{Progress, each};
use super::recompute::{lora_alpha, recompute_factors};
use super::report::InitReport;
use super::weight::InitWeight;
use super::writer::{factor_file, file_order, put};
use crate::adapter::{ADAPTER_CONFIG, Adapter, AdapterForm, RECIPE_FILE, Recipe, commit_folder, create_folder};
use crate::atomic::Output;
use crate::config::read_object;
use crate::family::TensorNames;
use crate::{Checkpoint, Error, LoadIn4Bit, ModelConfig, Result};
use loram_core::{Factors, LayerPlan, LayerRecipe, LoraConfig, SchemeSpec, TargetModules};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A base model: its weights, its configuration where it is of a known architecture, and its name.
pub type Base<'a> = (&'a Checkpoint, Option<&'a ModelConfig>, &'a str);

/// Writes to the folder `out` the adapter as it was before training, with the same bits, from `source`: a `loram.json`, or
/// an adapter folder that holds one (then the base's name, the task and the dropout are taken over as well).
///
/// Errors: no recipe; a scheme that decomposes the base's weights when no base is given; another base than the recipe's.
pub fn reproduce<'a>(
    source: &Path,
    base: Option<Base<'_>>,
    out: impl Into<Output<'a>>,
    progress: Progress<'_>,
) -> Result<InitReport> {
    let out = out.into();
    out.check()?;
    let clock = Instant::now();
    let file = recipe_file(source);
    let mut recipe = Recipe::read(&file)?;
    let mut adapter = settings(source, &recipe, &file)?;
    let names = base.map(|(ckpt, cfg, _)| TensorNames::of(ckpt, cfg)).transpose()?;
    let base_weights = base.map(|b| b.0).zip(names.as_ref());
    if let (Some((ckpt, names)), Some(print)) = (base_weights, &recipe.base) {
        print.verify(ckpt, Some(names))?;
    }
    if let Some((_, _, name)) = base {
        adapter.base_model = Some(name.to_string());
    }
    let mut plans: Vec<LayerPlan> = adapter.plan()?.into_values().collect();
    file_order(&mut plans, &adapter.embeddings);

    let new = create_folder(out)?;
    let mut writer = factor_file(new.path(), &plans, &adapter.embeddings)?;
    let use_rslora = adapter.config.use_rslora;
    let make = |plan: &LayerPlan| {
        let weight = || base_weights.map(|(ckpt, names)| InitWeight::find(ckpt, names, &plan.path)).transpose();
        recompute_factors(&recipe.layers[&plan.path], &recipe, use_rslora, weight)
    };
    each(&plans, make, |i, init| {
        put(&mut writer, &plans[i].path, &init, &adapter.embeddings)?;
        progress(i + 1, plans.len(), &plans[i].path);
        Ok(())
    })?;
    writer.finish()?;
    let changes_base = SchemeSpec::parse(&recipe.scheme, &recipe.options)?.info().changes_base;
    recipe.form = if changes_base { AdapterForm::Native } else { AdapterForm::Plain };
    let mut report = InitReport::new(&recipe, plans.iter().map(|p| p.path.as_str()));
    adapter.recipe = Some(recipe);
    adapter.write_settings(new.path())?;
    commit_folder(new)?;
    report.seconds = clock.elapsed().as_secs_f64();
    Ok(report)
}

/// How the weights were quantised on which the initialisation of this recipe was made, while they were read; `source` is as in
/// [`reproduce`].
///
/// Errors: no recipe.
pub fn recipe_in_4bit(source: &Path) -> Result<Option<LoadIn4Bit>> {
    Ok(Recipe::read(&recipe_file(source))?.base.and_then(|base| base.load_in_4bit))
}

fn recipe_file(source: &Path) -> PathBuf {
    if source.is_dir() { source.join(RECIPE_FILE) } else { source.to_path_buf() }
}

/// The adapter's settings, without factors. Ranks and scalings are those of the recipe's layers: an adapter that was
/// converted since has others.
fn settings(source: &Path, recipe: &Recipe, file: &Path) -> Result<Adapter> {
    if recipe.layers.is_empty() {
        return Err(Error::Json { path: file.into(), what: "the recipe has no layers".into() });
    }
    let beside = source.join(ADAPTER_CONFIG);
    let raw = if beside.exists() { read_object(&beside)? } else { Default::default() };
    let text = |key: &str| raw.get(key).and_then(Value::as_str).filter(|s| !s.is_empty()).map(str::to_string);
    let use_rslora = raw.get("use_rslora") == Some(&Value::Bool(true));
    let mut lora = LoraConfig {
        use_rslora,
        lora_dropout: raw.get("lora_dropout").and_then(Value::as_f64).unwrap_or(0.0),
        fan_in_fan_out: raw.get("fan_in_fan_out") == Some(&Value::Bool(true)),
        target_modules: TargetModules::Names(recipe.layers.keys().cloned().collect()),
        ..LoraConfig::default()
    };
    let mut layers = BTreeMap::new();
    let alpha = |l: &LayerRecipe| lora_alpha(l, use_rslora);
    lora.r = most_frequent(recipe.layers.values().map(|l| l.r));
    lora.lora_alpha = f64::from_bits(most_frequent(recipe.layers.values().map(|l| alpha(l).to_bits())));
    for (path, layer) in &recipe.layers {
        if *path != layer.path {
            let what = format!("the recipe of layer `{path}` is for `{}`", layer.path);
            return Err(Error::Json { path: file.into(), what });
        }
        let LayerRecipe { n, m, r, .. } = *layer;
        layers.insert(path.clone(), Factors { n, m, r, a: Vec::new(), b: Vec::new() });
    }
    lora.set_ranks(recipe.layers.iter().map(|(path, l)| (path.as_str(), l.r)));
    lora.set_alphas(recipe.layers.iter().map(|(path, l)| (path.as_str(), alpha(l))));
    let mut adapter = Adapter::new(lora, "", text("base_model_name_or_path"));
    adapter.task_type = text("task_type");
    adapter.revision = text("revision");
    adapter.layers = layers;
    adapter.embeddings = recipe.layers.iter().filter(|(_, l)| l.embedding).map(|(path, _)| path.clone()).collect();
    Ok(adapter)
}

fn most_frequent<T: Ord + Copy + Default>(values: impl Iterator<Item = T>) -> T {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    values.for_each(|v| *counts.entry(v).or_default() += 1);
    counts.into_iter().max_by_key(|c| c.1).map(|c| c.0).unwrap_or_default()
}
