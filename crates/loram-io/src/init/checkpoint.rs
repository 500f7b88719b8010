//! Initialisation of adapters for a whole checkpoint, without building the model: each target's weight is read once, in
//! place, and the factors go to the file as they are computed. No more than one layer per thread is in memory.

use super::layers::Progress;
use super::pipeline::{InitOptions, InitRecord};
use super::report::InitReport;
use super::residual::{self, Residual};
use super::weight::InitWeight;
use super::writer::{factor_file, file_order, put};
use crate::adapter::{ADAPTER_WEIGHTS, Adapter, AdapterForm, Fingerprint, commit_folder, create_folder};
use crate::atomic::Output;
use crate::config::{CONFIG_FILE, CheckpointHead, read_object};
use crate::family::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::linear::{check_requests, embedding_paths, refuse_other_targets};
use crate::{Checkpoint, Error, ModelConfig, Result, target_modules};
use loram_core::{Factors, LayerPlan, check_targets, plan_layers};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

/// The base model as the user named it.
#[derive(Debug, Clone, Copy)]
pub struct BaseName<'a> {
    /// A path or a hub id.
    pub name: &'a str,
    /// Its revision on the hub.
    pub revision: Option<&'a str>,
}

/// Initialises adapters for the targets of a checkpoint in memory. The result does not depend on the number of threads.
///
/// Without a config, the architecture need not be one that runs here: module paths are the names of the tensors (those of
/// GPT-2 and its relatives get their prefix), and the task is read from `config.json`.
///
/// Errors: nothing matches `target_modules`, or something that is not a linear layer does; a rank that a layer cannot
/// have; weights that are damaged, quantised or not a matrix; `modules_to_save`.
pub fn init(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &InitOptions,
    base: BaseName<'_>,
    progress: Progress<'_>,
) -> Result<(Adapter, InitReport)> {
    let job = Job::new(ckpt, cfg, options, base)?;
    let mut factors = BTreeMap::new();
    let (mut adapter, report) = job.run(progress, |plan, init| {
        factors.insert(plan.path.clone(), init);
        Ok(())
    })?;
    adapter.layers = factors;
    Ok((adapter, report))
}

/// Initialises adapters as [`init`] does and writes the adapter folder `out` meanwhile, so that no more than the current
/// layers are in memory. With `residual`, the checkpoint `W − s·B₀A₀` is written as well, and the adapter is then a plain
/// one of that base. Both appear when they are complete.
///
/// Errors: those of [`init`]; a residual of a scheme that leaves the base as it is; the disk.
pub fn init_to<'a>(
    ckpt: &Checkpoint,
    cfg: Option<&ModelConfig>,
    options: &InitOptions,
    base: BaseName<'_>,
    out: impl Into<Output<'a>>,
    residual: Option<Residual<'_>>,
    progress: Progress<'_>,
) -> Result<InitReport> {
    if residual.is_some() && !options.scheme.info().changes_base {
        let what = format!("`{}` leaves the base model as it is: there is no residual to write", options.scheme);
        return Err(Error::Usage(what));
    }
    if residual.is_some() {
        residual::refuse_quantised(ckpt)?;
    }
    let out = out.into();
    out.check()?;
    let job = Job::new(ckpt, cfg, options, base)?;
    let new = create_folder(out)?;
    let mut writer = factor_file(new.path(), &job.plans, &job.embeddings)?;
    let take = |plan: &LayerPlan, init| put(&mut writer, &plan.path, &init, &job.embeddings);
    let (mut adapter, mut report) = job.run(progress, take)?;
    writer.finish()?;
    if let Some(residual) = residual {
        let factors = new.path().join(ADAPTER_WEIGHTS);
        residual::write(ckpt, cfg, (&job.names, &job.plans), &mut adapter, &factors, residual)?;
        report.form = AdapterForm::Plain;
    }
    adapter.write_settings(new.path())?;
    commit_folder(new)?;
    Ok(report)
}

/// An initialisation with everything that is known before a weight is read.
struct Job<'a> {
    ckpt: &'a Checkpoint,
    names: TensorNames,
    task: Option<&'static str>,
    options: &'a InitOptions,
    base: BaseName<'a>,
    /// In the order of the file.
    plans: Vec<LayerPlan>,
    /// Paths in the order of the model.
    order: Vec<String>,
    /// Those of the plans that are embeddings.
    embeddings: BTreeSet<String>,
}

impl<'a> Job<'a> {
    fn new(
        ckpt: &'a Checkpoint,
        cfg: Option<&ModelConfig>,
        options: &'a InitOptions,
        base: BaseName<'a>,
    ) -> Result<Job<'a>> {
        options.refuse_saved_modules()?;
        let names = TensorNames::of(ckpt, cfg)?;
        let targets = target_modules(ckpt, cfg)?;
        match cfg {
            Some(cfg) => check_requests(ckpt, cfg, &options.lora)?,
            None => refuse_other_targets(ckpt, &names, &options.lora)?,
        }
        check_targets(&options.lora, &targets)?;
        let mut plans = plan_layers(&options.lora, &targets)?;
        let mut embeddings = embedding_paths(ckpt, &names);
        embeddings.retain(|path| plans.iter().any(|p| p.path == *path));
        let order = plans.iter().map(|p| p.path.clone()).collect();
        file_order(&mut plans, &embeddings);
        Ok(Job { ckpt, names, task: task_type(ckpt, cfg), options, base, plans, order, embeddings })
    }

    /// Initialises every layer; `take` gets the factors in the order of the file. Returns the adapter without them.
    fn run(
        &self,
        progress: Progress<'_>,
        mut take: impl FnMut(&LayerPlan, Factors) -> Result<()>,
    ) -> Result<(Adapter, InitReport)> {
        let clock = Instant::now();
        let mut record = InitRecord::new(self.options, self.options.lora.clone());
        let (mut layers, mut digests, mut bytes_read) = (BTreeMap::new(), BTreeMap::new(), 0);
        let weight = |p: &LayerPlan| {
            let weight = InitWeight::stored(LayerWeight::find(self.ckpt, &self.names, &p.path)?);
            Ok(weight.of_embedding(self.embeddings.contains(&p.path)))
        };
        let weights = self.plans.iter().map(weight).collect::<Result<Vec<_>>>()?;
        self.options.layers(&self.plans, &weights, |plan, made| {
            record.add(plan, &made.init);
            let LayerPlan { path, n, m, r, .. } = plan.clone();
            if self.names.family().lm_head != Some(&path) {
                digests.extend(made.digest.map(|digest| (path.clone(), digest)));
            }
            bytes_read += made.bytes;
            layers.insert(path, Factors { n, m, r, a: Vec::new(), b: Vec::new() });
            take(plan, made.init.factors)?;
            progress(layers.len(), self.plans.len(), &plan.path);
            Ok(())
        })?;
        let (config, recipe) = record.finish(Some(Fingerprint::new(digests).on(self.ckpt)));
        let mut report = InitReport::new(&recipe, self.order.iter().map(String::as_str));
        let mut adapter = Adapter::new(config, "", Some(self.base.name.to_string()));
        adapter.config.fan_in_fan_out |= self.plans.iter().any(|p| self.names.is_transposed(&p.path));
        adapter.task_type = self.task.map(str::to_string);
        adapter.revision = self.base.revision.map(str::to_string);
        (adapter.layers, adapter.recipe) = (layers, Some(recipe));
        adapter.embeddings.clone_from(&self.embeddings);
        (report.bytes_read, report.seconds) = (bytes_read, clock.elapsed().as_secs_f64());
        Ok((adapter, report))
    }
}

/// PEFT's task of a checkpoint, by the head that it has.
fn task_type(ckpt: &Checkpoint, cfg: Option<&ModelConfig>) -> Option<&'static str> {
    match (cfg, cfg.map(ModelConfig::head)) {
        (_, Some(CheckpointHead::SequenceClassification)) => return Some("SEQ_CLS"),
        (_, Some(CheckpointHead::TokenClassification)) => return Some("TOKEN_CLS"),
        (Some(ModelConfig::Encoder(_)), _) => return Some("FEATURE_EXTRACTION"),
        (Some(ModelConfig::Decoder(_)), _) => return Some("CAUSAL_LM"),
        (None, _) => {}
    }
    let raw = read_object(&ckpt.root().join(CONFIG_FILE)).ok()?;
    let class = raw.get("architectures").and_then(|a| a.get(0)).and_then(Value::as_str).unwrap_or_default();
    match class {
        _ if class.contains("ForSequenceClassification") => Some("SEQ_CLS"),
        _ if class.contains("ForTokenClassification") => Some("TOKEN_CLS"),
        _ if raw.get("is_encoder_decoder") == Some(&Value::Bool(true)) => Some("SEQ_2_SEQ_LM"),
        _ if class.contains("CausalLM") || class.contains("LMHead") => Some("CAUSAL_LM"),
        _ => None,
    }
}
