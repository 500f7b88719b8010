//! Starts of adapters for a whole checkpoint, without building the model: each target's weight is read once, in place,
//! and one layer per thread is in memory beside the factors.

use crate::adapter::{Adapter, AdapterForm, Fingerprint, LoraWeights, Recipe};
use crate::config::{Head, TensorNames};
use crate::merge::{MergeReport, MergeSource, write_merged};
use crate::{Checkpoint, Error, ModelConfig, Result, TensorRef, linear_modules};
use loram_core::{LayerPlan, LoraConfig, MatRef, SchemeSpec, Start, initialize, plan_layers};
use serde::Serialize;
use serde_json::Map;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// What is started, and how.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// PEFT's settings. `modules_to_save` must be empty: modules that are trained whole have no start of their own.
    pub lora: LoraConfig,
    /// The start.
    pub scheme: SchemeSpec,
    /// Seed of random starts.
    pub seed: u64,
    /// The base as the user named it.
    pub base_model: String,
    /// Its revision on the hub.
    pub revision: Option<String>,
}

/// A started layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StartedLayer {
    /// Module path.
    pub path: String,
    /// Output and input features.
    pub shape: [usize; 2],
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// Q\[r\] of LoRAM.
    pub gain: Option<f64>,
    /// Scale of LoRAM's bases.
    pub beta: Option<f64>,
}

/// What a start took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitReport {
    /// Canonical name of the scheme.
    pub scheme: String,
    /// Layers in the order of the model.
    pub layers: Vec<StartedLayer>,
    /// Entries of all A and B.
    pub trainable_parameters: u64,
    /// Bytes of weights that were read.
    pub bytes_read: u64,
    /// Wall time without writing.
    pub seconds: f64,
    /// Whether the factors belong to a changed base: then the adapter is in native form.
    pub changes_base: bool,
}

/// The tensor under a module path; an output layer that is tied to the embedding is the embedding.
pub(crate) fn weight_of(ckpt: &Checkpoint, names: Option<&TensorNames>, path: &str) -> Result<TensorRef> {
    let stored = |path: &str| {
        let name = format!("{path}.weight");
        names.map_or(name.clone(), |n| n.stored(&name))
    };
    let own = stored(path);
    if path == "lm_head" && !ckpt.contains(&own) {
        return ckpt.tensor(&stored("model.embed_tokens"));
    }
    ckpt.tensor(&own)
}

/// Values of a tensor in f32, converted on this thread, so that no other layer is begun meanwhile.
fn values(tensor: &TensorRef) -> Result<Vec<f32>> {
    const PIECE: usize = 1 << 14;
    let mut out = vec![0.0; tensor.len()];
    for (i, piece) in out.chunks_mut(PIECE).enumerate() {
        let at = i * PIECE;
        tensor.read_f32(at..at + piece.len(), piece)?;
    }
    Ok(out)
}

/// Starts one layer from its tensor.
fn start_layer(tensor: &TensorRef, plan: &LayerPlan, scheme: &SchemeSpec, seed: u64) -> Result<Start> {
    if tensor.shape() != [plan.n, plan.m] {
        let what = format!("expected shape ({}, {}), found {:?}", plan.n, plan.m, tensor.shape());
        return Err(Error::Tensor { name: tensor.name().into(), what });
    }
    let start = match tensor.as_f32() {
        Some(data) => initialize(scheme, MatRef { data, rows: plan.n, cols: plan.m }, plan, seed)?,
        None => {
            let data = values(tensor)?;
            initialize(scheme, MatRef { data: &data, rows: plan.n, cols: plan.m }, plan, seed)?
        }
    };
    tensor.release();
    Ok(start)
}

/// Starts adapters for the targets of a checkpoint. `progress` gets layers done, layers in all and the layer that was
/// finished; it is called from several threads. The result does not depend on their number.
///
/// Errors: nothing matches `target_modules`, a rank that a layer cannot have, weights that are damaged, quantised or no
/// matrix, `modules_to_save`.
pub fn init(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &InitOptions,
    progress: &(dyn Fn(usize, usize, &str) + Sync),
) -> Result<(Adapter, InitReport)> {
    let clock = Instant::now();
    if options.lora.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()) {
        let what = "modules_to_save: modules that are trained whole need no start; give them when training";
        return Err(Error::Usage(what.into()));
    }
    let names = cfg.map(|c| TensorNames::find(ckpt, c)).transpose()?;
    let plans = plan_layers(&options.lora, &linear_modules(ckpt, cfg)?)?;
    let starts = run(ckpt, names.as_ref(), &plans, options, progress)?;

    let mut lora = options.lora.clone();
    let mut adapter = Adapter::new(lora.clone(), task_type(cfg), Some(options.base_model.clone()));
    let mut report = InitReport {
        scheme: options.scheme.to_string(),
        layers: Vec::new(),
        trainable_parameters: 0,
        bytes_read: 0,
        seconds: 0.0,
        changes_base: false,
    };
    let mut recipes = BTreeMap::new();
    for (plan, start) in plans.into_iter().zip(starts) {
        let LayerPlan { path, n, m, r, .. } = plan;
        if start.scaling != plan.scaling {
            // the scheme has a lora_alpha of its own
            lora.alpha_pattern.insert(path.clone(), plan.lora_alpha * start.scaling / plan.scaling);
        }
        report.changes_base |= start.changes_base;
        report.trainable_parameters += ((n + m) * r) as u64;
        report.bytes_read += weight_of(ckpt, names.as_ref(), &path)?.bytes().len() as u64;
        let (gain, beta) = (start.recipe.gain, start.recipe.beta);
        report.layers.push(StartedLayer { path: path.clone(), shape: [n, m], r, scaling: start.scaling, gain, beta });
        recipes.insert(path.clone(), start.recipe);
        adapter.layers.insert(path, LoraWeights { n, m, r, a: start.a, b: start.b });
    }
    let form = if report.changes_base { AdapterForm::Native } else { AdapterForm::Plain };
    let mut recipe = Recipe::new(form, report.scheme.clone(), options.seed);
    recipe.options = options.scheme.options.clone();
    recipe.layers = recipes;
    let own = adapter.layers.keys().map(String::as_str).filter(|p| *p != "lm_head");
    recipe.base = Some(Fingerprint::of(ckpt, names.as_ref(), own)?);
    adapter.config = lora;
    adapter.revision = options.revision.clone();
    adapter.recipe = Some(recipe);
    report.seconds = clock.elapsed().as_secs_f64();
    Ok((adapter, report))
}

/// PEFT's task of a checkpoint, by the head that it has.
fn task_type(cfg: Option<&ModelConfig>) -> &'static str {
    match (cfg, cfg.map(ModelConfig::head)) {
        (_, Some(Head::SequenceClassification)) => "SEQ_CLS",
        (Some(ModelConfig::Encoder(_)), _) => "FEATURE_EXTRACTION",
        _ => "CAUSAL_LM",
    }
}

/// Starts all layers, as many at a time as there are threads.
fn run(
    ckpt: &Checkpoint,
    names: Option<&TensorNames>,
    plans: &[LayerPlan],
    options: &InitOptions,
    progress: &(dyn Fn(usize, usize, &str) + Sync),
) -> Result<Vec<Start>> {
    let (next, done, failed) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let found: Mutex<Vec<(usize, Result<Start>)>> = Mutex::new(Vec::with_capacity(plans.len()));
    // threads of our own: a thread of the pool that waits for a part of its layer would begin another layer meanwhile
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(plan) = plans.get(i) else { break };
            let start = weight_of(ckpt, names, &plan.path)
                .and_then(|tensor| start_layer(&tensor, plan, &options.scheme, options.seed));
            failed.fetch_or(start.is_err(), Ordering::Relaxed);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((i, start));
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, plans.len(), &plan.path);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..rayon::current_num_threads().min(plans.len()) {
            scope.spawn(work);
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|f| f.0);
    found.into_iter().map(|f| f.1).collect()
}

/// Writes the residual checkpoint of a started adapter: `W − s·B₀·A₀` in place of every target, in the dtype of the base,
/// all else copied. With it, the factors are a plain adapter (`adapter` becomes one, of the base `out`) that any trainer
/// can go on with. In 16-bit dtypes the residual is rounded: the model moves by 2e-3 to 2e-2 of ‖W‖ (2507.06558; keep the
/// base and the native form where that matters).
///
/// Errors: an adapter that does not change its base, those of [`write_merged`].
pub fn write_residual(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    adapter: &mut Adapter,
    out: &Path,
) -> Result<MergeReport> {
    if adapter.form() != AdapterForm::Native {
        let what = "this start does not change the base model: there is no residual to write".into();
        return Err(Error::Usage(what));
    }
    let spec = adapter.recipe.as_ref().map(|r| SchemeSpec::parse(&r.scheme, &r.options)).transpose()?;
    let mut source = Residual { adapter, plans: adapter.plan()?, spec };
    let report = write_merged(ckpt, cfg, out, &Map::new(), &mut source)?;
    let names = cfg.map(|c| TensorNames::find(ckpt, c)).transpose()?;
    let residual = Checkpoint::open(out)?;
    let own = adapter.layers.keys().map(String::as_str);
    let base = Fingerprint::of(&residual, names.as_ref(), own)?;
    adapter.base_model = Some(out.display().to_string());
    adapter.revision = None;
    if let Some(recipe) = &mut adapter.recipe {
        recipe.form = AdapterForm::Plain;
        recipe.base = Some(base);
    }
    Ok(report)
}

struct Residual<'a> {
    adapter: &'a Adapter,
    plans: BTreeMap<String, LayerPlan>,
    spec: Option<SchemeSpec>,
}

impl MergeSource for Residual<'_> {
    fn targets(&self) -> Vec<String> {
        self.adapter.layers.keys().map(|p| format!("{p}.weight")).collect()
    }

    fn apply(&mut self, name: &str, _: &[usize], values: &mut [f32]) -> Result<()> {
        let path = name.strip_suffix(".weight").unwrap_or(name);
        if let Some(w) = self.adapter.layers.get(path) {
            let plan = &self.plans[path];
            let matrix = MatRef { data: values, rows: w.n, cols: w.m };
            let quantised =
                self.spec.as_ref().map(|spec| loram_core::quantised_base(spec, matrix, plan)).transpose()?;
            match quantised.flatten() {
                // what LoftQ's factors belong to: the quantised weight, read back
                Some(q) => values.copy_from_slice(&q),
                // the factors as they are stored, so that their product and what is taken off are the same
                None => loram_core::add_product(values, &w.a, &w.b, w.m, w.r, -plan.scaling),
            }
        }
        Ok(())
    }
}
