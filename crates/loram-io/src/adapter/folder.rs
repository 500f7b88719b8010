//! An adapter folder, read and written: configuration, weights, model card, recipe and stored initial factors.

use super::card;
use super::config_file::{self, ADAPTER_CONFIG, PEFT_VERSION};
use super::in_memory::Adapter;
use super::recipe::{AdapterForm, RECIPE_FILE, Recipe};
use super::tensors::{self, ADAPTER_WEIGHTS};
use crate::atomic::{self, AtomicDir, Output};
use crate::checkpoint::{TensorSpec, pt_metadata, write_safetensors};
use crate::config::read_object;
use crate::{Checkpoint, DType, Error, Result, family, manifest};
use loram_core::{Factors, LoraConfig, TargetModules};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File beside a native adapter with initial factors that its recipe alone cannot give: `<module path>.A0` and `.B0`.
pub const INIT_FACTORS: &str = "start.safetensors";

impl Adapter {
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
            let own = dir.join("adapter");
            return match own.join(ADAPTER_CONFIG).exists() {
                true => refuse(&format!("is a run folder: its adapter is {}", own.display())),
                false => refuse("no adapter_config.json: not an adapter folder"),
            };
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
        if let manifest::State::Damaged(what) = manifest::state(dir) {
            return refuse(&format!(
                "{what}: the adapter is damaged, or was changed after it was written; if the change is meant, remove {}",
                manifest::MANIFEST
            ));
        }
        let raw = read_object(&config_path)?;
        let config = config_file::decode(&raw, &config_path)?;
        let text = |key: &str| raw.get(key).and_then(Value::as_str).map(str::to_string);
        let task_type = text("task_type");
        let modules_to_save = saved_modules(&config, task_type.as_deref());
        let parts = tensors::read(&weights, &modules_to_save, config.ensure_weight_tying)?;
        let recipe_path = dir.join(RECIPE_FILE);
        let recipe = if recipe_path.exists() { Some(Recipe::read(&recipe_path)?) } else { None };
        let adapter = Adapter {
            config,
            task_type,
            base_model: text("base_model_name_or_path").filter(|b| !b.is_empty()),
            revision: text("revision"),
            layers: parts.layers,
            embeddings: parts.embeddings,
            biases: parts.biases,
            tokens: parts.tokens,
            saved: parts.saved,
            base_copies: parts.base_copies,
            recipe,
            init_factors: read_init_factors(dir)?,
            dtype: parts.dtype.unwrap_or(DType::F32),
            raw,
        };
        adapter.check().map_err(|what| Error::Adapter { path: dir.to_path_buf(), what })?;
        Ok(adapter)
    }

    /// Writes a new folder: configuration, weights, model card, recipe and manifest. It appears when it is complete. An
    /// error if there is something of its name.
    pub fn write(&self, dir: impl AsRef<Path>) -> Result<()> {
        self.write_to(Output::new(dir.as_ref(), false))
    }

    /// The same, or in exchange for an earlier adapter, of whose folder the files that are not part of an adapter stay.
    pub fn write_to(&self, output: Output<'_>) -> Result<()> {
        self.check().map_err(|what| Error::Adapter { path: output.path.to_path_buf(), what })?;
        let new = create(output)?;
        self.write_files(new.path())?;
        commit(new)
    }

    /// Writes the files of an adapter, without a manifest, into a folder that has none of them.
    pub fn write_files(&self, dir: &Path) -> Result<()> {
        self.check().map_err(|what| Error::Adapter { path: dir.to_path_buf(), what })?;
        let Adapter { layers, embeddings, biases, tokens, saved, .. } = self;
        let contents = tensors::Contents { layers, embeddings, biases, tokens, saved };
        write_safetensors(dir.join(ADAPTER_WEIGHTS), &pt_metadata(), tensors::encode(&contents, self.dtype))?;
        self.write_settings(dir)?;
        if self.form() == AdapterForm::Native && !self.init_factors.is_empty() {
            write_safetensors(dir.join(INIT_FACTORS), &pt_metadata(), self.init_tensors())?;
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

    /// The object of `adapter_config.json`.
    pub fn config_json(&self) -> Result<Map<String, Value>> {
        let Value::Object(mut set) = serde_json::to_value(&self.config).map_err(|e| Error::json(ADAPTER_CONFIG, e))?
        else {
            return Err(Error::json(ADAPTER_CONFIG, "the configuration is not a JSON object"));
        };
        if self.config.target_modules == TargetModules::AllLinear {
            // PEFT resolves the shorthand before it saves; the last parts of the names give the same layers, but in a checkpoint
            // with other towers, whose layers have the same
            let last = |path: &str| path.rsplit_once('.').map_or(0, |(parent, _)| parent.len() + 1);
            let start = |path: &str| if family::is_in_tower(path) { 0 } else { last(path) };
            let names: BTreeSet<&str> = self.layers.keys().map(|path| &path[start(path)..]).collect();
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

/// A new adapter folder under a temporary name.
pub(crate) fn create(output: Output<'_>) -> Result<AtomicDir> {
    output.check_folder("an adapter folder", ADAPTER_CONFIG)?;
    AtomicDir::create(output)
}

/// Writes the manifest of a new adapter folder and moves it into place. Of an earlier adapter there, files that are not part
/// of an adapter stay.
pub(crate) fn commit(new: AtomicDir) -> Result<()> {
    manifest::write(new.path())?;
    let parts = [ADAPTER_CONFIG, ADAPTER_WEIGHTS, RECIPE_FILE, INIT_FACTORS, manifest::MANIFEST, "README.md"];
    new.commit_keeping(|name| !parts.contains(&name))
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

/// `modules_to_save`, with the heads that PEFT always saves for classification of sequences and of tokens.
fn saved_modules(config: &LoraConfig, task_type: Option<&str>) -> Vec<String> {
    let mut out: Vec<String> = config.modules_to_save.iter().flatten().cloned().collect();
    if matches!(task_type, Some("SEQ_CLS" | "TOKEN_CLS")) {
        for name in ["classifier", "score"] {
            if !out.iter().any(|m| m == name) {
                out.push(name.into());
            }
        }
    }
    out
}
