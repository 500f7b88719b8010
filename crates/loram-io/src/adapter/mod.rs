//! LoRA adapters in PEFT's layout: `adapter_config.json`, `adapter_model.safetensors`, a model card, and beside them
//! `loram.json`, the recipe of an adapter that was made here.

mod card;
mod config_file;
mod convert;
mod merge;
mod recipe;
mod tensors;

pub use config_file::PEFT_VERSION;
pub use convert::{BaseWeights, TruncatedLayer, Truncation};
pub use merge::{AdapterMerge, MergeOptions, merge_adapter};
pub use recipe::{AdapterForm, Fingerprint, RECIPE_FILE, Recipe};
pub(crate) use tensors::factor_specs;

use crate::atomic::{self, AtomicDir};
use crate::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use crate::config::read_object;
use crate::family::TensorNames;
use crate::layer_weight::LayerWeight;
use crate::{Checkpoint, DType, Error, ModelConfig, Result};
use loram_core::{Factors, LayerPlan, LinearInfo, LoraConfig, TargetModules, plan_layers};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File name of the adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";
/// File name of the adapter's weights.
pub const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// File beside a native adapter with initial factors that its recipe alone cannot give: `<module path>.A0` and `.B0`.
pub const INIT_FACTORS: &str = "start.safetensors";

/// A tensor of a fully trained module.
#[derive(Debug, Clone, PartialEq)]
pub struct SavedTensor {
    /// Dimensions.
    pub shape: Vec<usize>,
    /// Values, row-major.
    pub values: Vec<f32>,
}

/// An adapter in memory.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// PEFT's settings.
    pub config: LoraConfig,
    /// PEFT's task, `CAUSAL_LM` or `SEQ_CLS`.
    pub task_type: Option<String>,
    /// The base model as the user named it, a path or a hub id.
    pub base_model: Option<String>,
    /// Revision of the base model on the hub.
    pub revision: Option<String>,
    /// Factors by module path.
    pub layers: BTreeMap<String, Factors>,
    /// Tensors of `modules_to_save`, by name in the task model, e.g. `classifier.weight`.
    pub saved: BTreeMap<String, SavedTensor>,
    /// Copies of the base's weights that came with the file, by name in the task model; see [`Adapter::check_copies`].
    pub base_copies: BTreeMap<String, SavedTensor>,
    /// Its recipe; `None` for adapters of other programs.
    pub recipe: Option<Recipe>,
    /// Initial factors that are stored because the recipe alone cannot give them, by module path.
    pub init_factors: BTreeMap<String, Factors>,
    /// Type that the tensors are stored in: F32, F16 or BF16.
    pub dtype: DType,
    /// `adapter_config.json` as it was read, so that keys unknown here survive; empty for a new adapter.
    pub raw: Map<String, Value>,
}

impl Adapter {
    /// An adapter without layers yet, stored in F32.
    pub fn new(config: LoraConfig, task_type: &str, base_model: Option<String>) -> Adapter {
        Adapter {
            config,
            task_type: Some(task_type.to_string()),
            base_model,
            revision: None,
            layers: BTreeMap::new(),
            saved: BTreeMap::new(),
            base_copies: BTreeMap::new(),
            recipe: None,
            init_factors: BTreeMap::new(),
            dtype: DType::F32,
            raw: Map::new(),
        }
    }

    /// Reads an adapter folder, by any version of PEFT. Errors: no adapter, pickled weights only, a kind of adapter that
    /// is not supported (named), tensors that do not fit together or are not finite.
    pub fn read(dir: impl AsRef<Path>) -> Result<Adapter> {
        let dir = dir.as_ref();
        let refuse = |what: &str| Err(Error::Adapter { path: dir.to_path_buf(), what: what.into() });
        if !dir.is_dir() {
            return refuse("no such adapter folder");
        }
        let (config_path, weights) = (dir.join(ADAPTER_CONFIG), dir.join(ADAPTER_WEIGHTS));
        if !config_path.exists() {
            return refuse("no adapter_config.json: not an adapter folder");
        }
        if !weights.exists() {
            return match dir.join("adapter_model.bin").exists() {
                true => refuse(
                    "holds adapter_model.bin but no adapter_model.safetensors: pickled files can run code and are never \
                     loaded; load it with PEFT once and save it again",
                ),
                false => refuse("no adapter_model.safetensors: the adapter is incomplete"),
            };
        }
        let raw = read_object(&config_path)?;
        let config = config_file::decode(&raw, &config_path)?;
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_string);
        let task_type = text("task_type");
        let modules_to_save = saved_modules(&config, task_type.as_deref());
        let tensors::Parts { layers, saved, base_copies, dtype } = tensors::read(&weights, &modules_to_save)?;
        let recipe_path = dir.join(RECIPE_FILE);
        let recipe = if recipe_path.exists() { Some(Recipe::read(&recipe_path)?) } else { None };
        let adapter = Adapter {
            config,
            task_type,
            base_model: text("base_model_name_or_path").filter(|b| !b.is_empty()),
            revision: text("revision"),
            layers,
            saved,
            base_copies,
            recipe,
            init_factors: read_init_factors(dir)?,
            dtype,
            raw,
        };
        adapter.check().map_err(|what| Error::Adapter { path: dir.to_path_buf(), what })?;
        Ok(adapter)
    }

    /// Writes the folder: configuration, weights, model card and recipe, each complete or not at all; other files that
    /// are there stay.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        self.check().map_err(|what| Error::Adapter { path: dir.to_path_buf(), what })?;
        let new = AtomicDir::create(dir)?;
        let tensors = tensors::encode(&self.layers, &self.saved, self.dtype);
        write_safetensors(new.path().join(ADAPTER_WEIGHTS), &pt_metadata(), tensors)?;
        self.write_settings(new.path())?;
        let stored = self.form() == AdapterForm::Native && !self.init_factors.is_empty();
        if stored {
            write_safetensors(new.path().join(INIT_FACTORS), &pt_metadata(), self.init_tensors())?;
        }
        new.commit()?;
        // files of an older adapter in the same folder belong to other factors
        for (name, stays) in [(RECIPE_FILE, self.recipe.is_some()), (INIT_FACTORS, stored)] {
            let old = dir.join(name);
            if !stays && old.exists() {
                std::fs::remove_file(&old).map_err(|e| Error::io("remove", &old, e))?;
            }
        }
        Ok(())
    }

    /// Writes what is beside the weights: configuration, model card and recipe. Of the layers, only paths and ranks are
    /// looked at.
    pub(crate) fn write_settings(&self, dir: &Path) -> Result<()> {
        atomic::write_json(dir.join(ADAPTER_CONFIG), &self.config_json()?)?;
        atomic::write_bytes(dir.join("README.md"), card::render(self).as_bytes())?;
        match &self.recipe {
            Some(recipe) => atomic::write_json(dir.join(RECIPE_FILE), recipe),
            None => Ok(()),
        }
    }

    fn init_tensors(&self) -> Vec<(TensorSpec, Cow<'_, [f32]>)> {
        let layers = self.init_factors.iter().filter(|(path, _)| self.layers.contains_key(*path));
        layers
            .flat_map(|(path, init)| {
                let Factors { n, m, r, ref a, ref b } = *init;
                [("A0", [r, m], a), ("B0", [n, r], b)].map(|(name, shape, values)| {
                    (TensorSpec::new(format!("{path}.{name}"), DType::F32, &shape), Cow::Borrowed(&values[..]))
                })
            })
            .collect()
    }

    /// The form: plain loads onto the untouched base; native only when the recipe says so.
    pub fn form(&self) -> AdapterForm {
        self.recipe.as_ref().map_or(AdapterForm::Plain, |r| r.form)
    }

    /// Rank, alpha and scaling of every layer, from the configuration's patterns.
    pub fn plan(&self) -> Result<BTreeMap<String, LayerPlan>> {
        // the file says which layers are adapted, the configuration only how they are scaled; a converted adapter may
        // have a rank beyond its layer's sides, which is fine once it is trained
        let linears: Vec<LinearInfo> = self
            .layers
            .iter()
            .map(|(path, w)| LinearInfo { path: path.clone(), n: w.n.max(w.r), m: w.m.max(w.r), output_layer: false })
            .collect();
        if linears.is_empty() {
            return Ok(BTreeMap::new());
        }
        let config = LoraConfig {
            target_modules: TargetModules::Names(self.layers.keys().cloned().collect()),
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: None,
            ..self.config.clone()
        };
        let plans = plan_layers(&config, &linears)?;
        let shaped = plans.into_iter().map(|p| {
            let w = &self.layers[&p.path];
            (p.path.clone(), LayerPlan { n: w.n, m: w.m, ..p })
        });
        Ok(shaped.collect())
    }

    /// The number of outputs of the sequence-classification head that the adapter brings for a model; `None` when it brings
    /// none.
    pub fn head_outputs(&self, config: &ModelConfig) -> Option<usize> {
        self.saved.get(&format!("{}.weight", config.classifier())).and_then(|t| t.shape.first().copied())
    }

    /// PEFT saves the weight under an adapted output layer along with the adapter. It must be the model's own: one that
    /// was resized or trained has no place in an adapter here.
    pub fn check_copies(&self, ckpt: &Checkpoint, names: &TensorNames) -> Result<()> {
        for (name, copy) in &self.base_copies {
            let path = name.strip_suffix(".weight").unwrap_or(name);
            let own = LayerWeight::find(ckpt, names, path)?.tensor;
            let same = own.shape() == copy.shape && own.to_f32()? == copy.values;
            if !same {
                let what = "the adapter brings another weight for this layer than the model has (was the vocabulary \
                            resized, or the layer trained?): that is not supported";
                return Err(Error::Tensor { name: name.clone(), what: what.into() });
            }
        }
        Ok(())
    }

    /// A line for the user when the configuration hints that the adapter belongs to a changed base: PEFT leaves
    /// `init_lora_weights` at `pissa`, `olora`, … unless the adapter was converted when it was saved.
    pub fn changed_base_hint(&self) -> Option<String> {
        let init = self.raw.get("init_lora_weights").and_then(Value::as_str)?.to_ascii_lowercase();
        let changes = ["pissa", "olora", "corda", "lora_ga", "loftq"].iter().any(|s| init.starts_with(s));
        (self.recipe.is_none() && changes).then(|| {
            format!(
                "init_lora_weights is `{init}`: unless the adapter was converted when it was saved, it belongs to a changed \
                 base model and gives wrong results on the original one"
            )
        })
    }

    /// The factors fit the configuration and the recipe; otherwise what is wrong.
    fn check(&self) -> std::result::Result<(), String> {
        if !matches!(self.dtype, DType::F32 | DType::F16 | DType::BF16) {
            return Err(format!("adapters are stored in F32, F16 or BF16, not {}", self.dtype));
        }
        for (path, w) in &self.layers {
            w.check().map_err(|what| format!("layer `{path}`: {what}"))?;
        }
        for (path, plan) in self.plan().map_err(|e| e.to_string())? {
            let r = self.layers[&path].r;
            if plan.r != r {
                return Err(format!("layer `{path}`: the factors have rank {r}, the configuration says {}", plan.r));
            }
        }
        if let Some(recipe) = self.recipe.as_ref().filter(|r| r.form == AdapterForm::Native) {
            for (path, w) in &self.layers {
                match recipe.layers.get(path) {
                    None => {
                        return Err(format!("{RECIPE_FILE} lacks layer `{path}`, whose initial factors are needed"));
                    }
                    Some(l) if (l.r, l.n, l.m) != (w.r, w.n, w.m) => {
                        return Err(format!("{RECIPE_FILE} and the weights differ in the shape of layer `{path}`"));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The object of `adapter_config.json`.
    pub fn config_json(&self) -> Result<Map<String, Value>> {
        let Value::Object(mut set) = serde_json::to_value(&self.config).map_err(|e| Error::json(ADAPTER_CONFIG, e))?
        else {
            return Err(Error::json(ADAPTER_CONFIG, "the configuration is not a JSON object"));
        };
        if self.config.target_modules == TargetModules::AllLinear {
            // PEFT resolves the shorthand before it saves; the last parts of the names give the same layers
            let names: BTreeSet<&str> = self.layers.keys().filter_map(|p| p.rsplit('.').next()).collect();
            set.insert("target_modules".into(), json!(names));
        }
        let modules = saved_modules(&self.config, self.task_type.as_deref());
        set.insert("modules_to_save".into(), if modules.is_empty() { Value::Null } else { json!(modules) });
        set.insert(
            "init_lora_weights".into(),
            match (&self.recipe, self.form()) {
                // PEFT stops at a name that it does not know, instead of computing with the wrong base
                (Some(recipe), AdapterForm::Native) => json!(format!("{}-native", recipe.scheme)),
                // plain factors do not need A₀ and B₀
                (Some(_), AdapterForm::Plain) => json!(true),
                (None, _) => self.raw.get("init_lora_weights").cloned().unwrap_or(json!(true)),
            },
        );
        set.insert("task_type".into(), json!(self.task_type));
        set.insert("base_model_name_or_path".into(), json!(self.base_model));
        set.insert("revision".into(), json!(self.revision));
        set.insert("inference_mode".into(), json!(true));
        set.insert("peft_version".into(), json!(PEFT_VERSION));
        Ok(config_file::encode(&self.raw, set))
    }
}

fn read_init_factors(dir: &Path) -> Result<BTreeMap<String, Factors>> {
    let path = dir.join(INIT_FACTORS);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let file = Checkpoint::open_file(&path)?;
    let mut out = BTreeMap::new();
    for name in file.names() {
        if let Some(layer) = name.strip_suffix(".A0") {
            let (a, b) = (file.tensor(name)?, file.tensor(&format!("{layer}.B0"))?);
            let ((r, m), (n, _)) = (a.dims2()?, b.dims2()?);
            out.insert(layer.to_string(), Factors { n, m, r, a: a.to_f32()?, b: b.to_f32()? });
        }
    }
    Ok(out)
}

/// `modules_to_save`, with the heads that PEFT always saves for sequence classification.
fn saved_modules(config: &LoraConfig, task_type: Option<&str>) -> Vec<String> {
    let mut out: Vec<String> = config.modules_to_save.iter().flatten().cloned().collect();
    if task_type == Some("SEQ_CLS") {
        for name in ["classifier", "score"] {
            if !out.iter().any(|m| m == name) {
                out.push(name.into());
            }
        }
    }
    out
}
