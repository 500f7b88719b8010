//! Starts of adapters for a whole checkpoint, without building the model: each target's weight is read once, in place,
//! and the factors go to the file as they are made. In memory is no more than one layer per thread.

mod layers;
mod remake;
mod residual;

pub(crate) use layers::each;
pub use remake::{Base, remake};
pub(crate) use remake::{again, from_base};
pub use residual::write_residual;

use crate::adapter::{ADAPTER_WEIGHTS, Adapter, AdapterForm, Fingerprint, Recipe, factor_specs};
use crate::atomic::AtomicDir;
use crate::checkpoint::{SafetensorsWriter, pt_metadata};
use crate::config::{CONFIG_FILE, CheckpointHead, TensorNames, read_object};
use crate::layer_weight::LayerWeight;
use crate::linear::refuse_other_targets;
use crate::{Checkpoint, DType, Error, ModelConfig, Result, linear_modules};
use loram_core::{Factors, LayerPlan, LayerRecipe, LoraConfig, SchemeSpec, plan_layers};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
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

/// Where to and in which type the residual checkpoint is written.
#[derive(Debug, Clone, Copy)]
pub struct Residual<'a> {
    /// The folder, absent or empty.
    pub to: &'a Path,
    /// Type of the changed weights: F32, or that of the base for `None`.
    pub dtype: Option<DType>,
}

/// A started layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitializedLayer {
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
    pub layers: Vec<InitializedLayer>,
    /// Entries of all A and B.
    pub trainable_parameters: u64,
    /// Bytes of weights that were read.
    pub bytes_read: u64,
    /// Wall time, without a residual checkpoint.
    pub seconds: f64,
    /// Whether the factors belong to a changed base: then the adapter is in native form, unless the residual checkpoint
    /// is written too.
    pub changes_base: bool,
    /// Form of the adapter.
    pub form: AdapterForm,
}

/// Layers done, layers in all, the layer that was finished. Called from several threads, one at a time.
pub type Progress<'a> = &'a (dyn Fn(usize, usize, &str) + Sync);

/// Starts adapters for the targets of a checkpoint in memory. The result does not depend on the number of threads.
///
/// Without a config, the architecture need not be one that runs here: module paths are the names of the tensors (those of
/// GPT-2 and its relatives get their prefix), and the task is read from `config.json`.
///
/// Errors: nothing matches `target_modules`, or something that is no linear layer does; a rank that a layer cannot have;
/// weights that are damaged, quantised or no matrix; `modules_to_save`.
pub fn init(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &InitOptions,
    progress: Progress<'_>,
) -> Result<(Adapter, InitReport)> {
    let job = Job::new(ckpt, cfg, options)?;
    let mut factors = BTreeMap::new();
    let mut done = job.run(progress, |plan, init| {
        factors.insert(plan.path.clone(), init);
        Ok(())
    })?;
    done.0.layers = factors;
    Ok(done)
}

/// Starts adapters as [`init`] does and writes the adapter folder `out` while it goes on, so that no more than the layers
/// at hand are in memory. With `residual`, the checkpoint `W − s·B₀A₀` is written as well, and the adapter is then a plain
/// one of that base. Both appear when they are complete.
///
/// Errors: those of [`init`]; a residual of a start that changes nothing; the disk.
pub fn init_to(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &InitOptions,
    out: &Path,
    residual: Option<Residual<'_>>,
    progress: Progress<'_>,
) -> Result<InitReport> {
    if residual.is_some() && !options.scheme.info().changes_base {
        let what = format!("`{}` leaves the base model as it is: there is no residual to write", options.scheme);
        return Err(Error::Usage(what));
    }
    let job = Job::new(ckpt, cfg, options)?;
    let new = AtomicDir::create(out)?;
    let mut writer = factor_file(new.path(), &job.plans)?;
    let (mut adapter, mut report) = job.run(progress, |plan, init| put(&mut writer, &plan.path, &init))?;
    writer.finish()?;
    if let Some(residual) = residual {
        let factors = new.path().join(ADAPTER_WEIGHTS);
        residual::write(ckpt, cfg, (&job.names, &job.plans), &mut adapter, &factors, residual)?;
        report.form = AdapterForm::Plain;
    }
    adapter.write_settings(new.path())?;
    new.commit()?;
    Ok(report)
}

/// The file of the factors, for layers in the order of [`file_order`].
fn factor_file(dir: &Path, plans: &[LayerPlan]) -> Result<SafetensorsWriter> {
    let specs = plans.iter().flat_map(|p| factor_specs(&p.path, p.n, p.m, p.r, DType::F32));
    SafetensorsWriter::create(dir.join(ADAPTER_WEIGHTS), &pt_metadata(), specs.collect())
}

fn put(writer: &mut SafetensorsWriter, path: &str, factors: &Factors) -> Result<()> {
    let [name_a, name_b] = factor_specs(path, factors.n, factors.m, factors.r, DType::F32).map(|s| s.name);
    writer.put_f32(&name_a, &factors.a)?;
    writer.put_f32(&name_b, &factors.b)
}

/// The order of tensors in an adapter file: by name.
fn file_order(plans: &mut [LayerPlan]) {
    plans.sort_by_cached_key(|p| factor_specs(&p.path, p.n, p.m, p.r, DType::F32)[0].name.clone());
}

/// A start with everything that is known before a weight is read.
struct Job<'a> {
    ckpt: &'a Checkpoint,
    names: TensorNames,
    task: Option<&'static str>,
    options: &'a InitOptions,
    /// In the order of the file.
    plans: Vec<LayerPlan>,
    /// Paths in the order of the model.
    order: Vec<String>,
}

impl<'a> Job<'a> {
    fn new(ckpt: &'a Checkpoint, cfg: Option<&ModelConfig>, options: &'a InitOptions) -> Result<Job<'a>> {
        if options.lora.modules_to_save.as_ref().is_some_and(|m| !m.is_empty()) {
            let what = "modules_to_save: modules that are trained whole need no start; give them when training";
            return Err(Error::Usage(what.into()));
        }
        let names = TensorNames::of(ckpt, cfg)?;
        let linears = linear_modules(ckpt, cfg)?;
        refuse_other_targets(ckpt, &names, &options.lora)?;
        let mut plans = plan_layers(&options.lora, &linears)?;
        let order = plans.iter().map(|p| p.path.clone()).collect();
        file_order(&mut plans);
        Ok(Job { ckpt, names, task: task_type(ckpt, cfg), options, plans, order })
    }

    /// Starts every layer; `take` gets them in the order of the file and may take the factors out. Gives the adapter
    /// without its factors.
    fn run(
        &self,
        progress: Progress<'_>,
        mut take: impl FnMut(&LayerPlan, Factors) -> Result<()> + Send,
    ) -> Result<(Adapter, InitReport)> {
        let clock = Instant::now();
        let o = self.options;
        let mut adapter = Adapter::new(o.lora.clone(), "", Some(o.base_model.clone()));
        let mut recipe = Recipe::new(AdapterForm::Plain, o.scheme.to_string(), o.seed);
        recipe.options = o.scheme.options().clone();
        let mut report = InitReport::new(o.scheme.to_string());
        let mut digests = BTreeMap::new();
        let make = |plan: &LayerPlan| {
            let weight = LayerWeight::find(self.ckpt, &self.names, &plan.path)?;
            let start = weight.start(plan, &o.scheme, o.seed)?;
            let digest = Fingerprint::digest(&weight.tensor);
            let bytes = weight.tensor.bytes().len();
            weight.tensor.release();
            Ok((start, digest, bytes))
        };
        layers::each(&self.plans, make, |i, (start, digest, bytes)| {
            let plan = &self.plans[i];
            take(plan, start.factors)?;
            if start.scaling != plan.scaling {
                // the scheme has a lora_alpha of its own
                adapter.config.alpha_pattern.insert(plan.path.clone(), start.lora_alpha);
            }
            adapter.config.fan_in_fan_out |= self.names.is_transposed(&plan.path);
            if self.names.family().lm_head != Some(&plan.path) {
                digests.insert(plan.path.clone(), digest);
            }
            report.add(&start.recipe);
            report.changes_base |= start.changes_base;
            report.bytes_read += bytes as u64;
            let LayerPlan { path, n, m, r, .. } = plan.clone();
            adapter.layers.insert(path.clone(), Factors { n, m, r, a: Vec::new(), b: Vec::new() });
            progress(adapter.layers.len(), self.plans.len(), &path);
            recipe.layers.insert(path, start.recipe);
            Ok(())
        })?;
        if report.changes_base {
            recipe.form = AdapterForm::Native;
        }
        report.form = recipe.form;
        recipe.base = Some(Fingerprint::new(digests));
        adapter.task_type = self.task.map(str::to_string);
        adapter.revision = o.revision.clone();
        adapter.recipe = Some(recipe);
        report.sort(&self.order);
        report.seconds = clock.elapsed().as_secs_f64();
        Ok((adapter, report))
    }
}

impl InitReport {
    fn new(scheme: String) -> InitReport {
        InitReport {
            scheme,
            layers: Vec::new(),
            trainable_parameters: 0,
            bytes_read: 0,
            seconds: 0.0,
            changes_base: false,
            form: AdapterForm::Plain,
        }
    }

    fn add(&mut self, recipe: &LayerRecipe) {
        let LayerRecipe { path, n, m, r, scaling, gain, beta, .. } = recipe.clone();
        self.trainable_parameters += ((n + m) * r) as u64;
        self.layers.push(InitializedLayer { path, shape: [n, m], r, scaling, gain, beta });
    }

    fn sort(&mut self, order: &[String]) {
        let place: BTreeMap<&str, usize> = order.iter().enumerate().map(|(i, p)| (p.as_str(), i)).collect();
        self.layers.sort_by_key(|l| place.get(l.path.as_str()).copied());
    }
}

/// PEFT's task of a checkpoint, by the head that it has.
fn task_type(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Option<&'static str> {
    match (cfg, cfg.map(ModelConfig::head)) {
        (_, Some(CheckpointHead::SequenceClassification)) => return Some("SEQ_CLS"),
        (Some(ModelConfig::Encoder(_)), _) => return Some("FEATURE_EXTRACTION"),
        (Some(ModelConfig::Decoder(_)), _) => return Some("CAUSAL_LM"),
        (None, _) => {}
    }
    let raw = read_object(&ckpt.root().join(CONFIG_FILE)).ok()?;
    let class = raw.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).unwrap_or_default();
    match class {
        _ if class.contains("ForSequenceClassification") => Some("SEQ_CLS"),
        _ if raw.get("is_encoder_decoder") == Some(&Value::Bool(true)) => Some("SEQ_2_SEQ_LM"),
        _ if class.contains("CausalLM") || class.contains("LMHead") => Some("CAUSAL_LM"),
        _ => None,
    }
}
