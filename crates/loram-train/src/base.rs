//! A model folder or GGUF file: its configuration, mapped weights, tokenizer and generation settings.

use crate::config::TrainConfig;
use crate::groups::NewHead;
use crate::observer::{Event, Observer, Stage};
use crate::{Error, Result};
use loram_core::LoraConfig;
use loram_io::adapter::ADAPTER_CONFIG;
use loram_io::checkpoint::settings_sha256;
use loram_io::config::{GenerationConfig, HeadLayout, PoolingMode};
use loram_io::family::TensorNames;
use loram_io::hub;
use loram_io::{Adapter, Checkpoint, LoadIn4Bit, ModelConfig, TextTokenizer};
use loram_nn::{HeadKind, LoadOptions, Model};
use std::path::{Path, PathBuf};

/// A model folder or GGUF file: everything but the weights in memory.
pub struct Base {
    /// As the user named it.
    pub name: String,
    /// Revision on the hub.
    pub revision: Option<String>,
    /// The folder or file on this machine.
    pub dir: PathBuf,
    /// `config.json`.
    pub config: ModelConfig,
    /// Its weights, mapped.
    pub checkpoint: Checkpoint,
    /// Its tokenizer.
    pub tokenizer: TextTokenizer,
    /// `generation_config.json`.
    pub generation: GenerationConfig,
}

/// The weights of the base under an adapter that is evaluated.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum BaseWeights {
    /// As they were when the adapter was trained.
    #[default]
    OfAdapter,
    /// As they are stored.
    AsStored,
    /// Quantised while they are read.
    FourBit(LoadIn4Bit),
}

impl BaseWeights {
    /// How the base is quantised while it is read, if it is.
    pub fn four_bit<'a>(&'a self, adapter: Option<&'a Adapter>) -> Option<&'a LoadIn4Bit> {
        match self {
            BaseWeights::OfAdapter => adapter.and_then(Adapter::loaded_in_4bit),
            BaseWeights::AsStored => None,
            BaseWeights::FourBit(four_bit) => Some(four_bit),
        }
    }
}

/// A local folder or GGUF file, or a hub id downloaded into the cache.
pub fn resolve(name: &str, revision: Option<&str>, observer: &mut dyn Observer) -> Result<PathBuf> {
    Ok(hub::resolve(name, revision, &mut |d| stage(observer, Stage::Download, d.done, d.total, d.file))?)
}

/// The configuration with what the adapter that is trained further says of its base: how the weights were quantised, and, if the
/// configuration names no model itself, which model it is. Errors: an adapter that names no base model either.
pub(crate) fn with_base_model(config: &TrainConfig, observer: &mut dyn Observer) -> Result<TrainConfig> {
    let mut config = config.clone();
    let Some(name) = config.adapter_name_or_path.clone() else { return Ok(config) };
    let adapter = Adapter::read(resolve(&name, None, observer)?)?;
    if !config.origins.contains_key("load_in_4bit")
        && let Some(four_bit) = adapter.loaded_in_4bit()
    {
        config.set_four_bit(four_bit);
    }
    config.pooling = pooling_of(&adapter, &name, config.pooling)?;
    if config.model_name_or_path.is_empty() {
        config.model_name_or_path = adapter.base_model.ok_or_else(|| {
            Error::Config(format!(
                "model_name_or_path is missing, and the adapter {name} does not name its base model: give it (--model)"
            ))
        })?;
        config.revision = config.revision.or(adapter.revision);
    }
    Ok(config)
}

/// The pooling of an adapter that is trained further. Errors: another one is asked for than it was trained with.
fn pooling_of(adapter: &Adapter, name: &str, wanted: Option<PoolingMode>) -> Result<Option<PoolingMode>> {
    let own = adapter.recipe.as_ref().and_then(|r| r.pooling);
    let Some(mode) = wanted.filter(|_| wanted != own) else { return Ok(own) };
    let mode = mode.as_str();
    if adapter.recipe.is_none() {
        let what = "but the adapter has no loram.json, which would remember it: begin with a new adapter";
        return Err(Error::Config(format!("pooling is {mode}, {what} ({name})")));
    }
    if !adapter.saved.is_empty() {
        let own = own.map_or("that of the model's class", PoolingMode::as_str);
        return Err(Error::Config(format!(
            "pooling is {mode}, but the adapter {name} was trained with {own}: leave it out"
        )));
    }
    Ok(wanted)
}

impl Base {
    /// Opens the base model of a configuration, with its pooling. Errors: those of [`Base::open`] and
    /// [`ModelConfig::set_pooling`].
    pub fn of(config: &TrainConfig, observer: &mut dyn Observer) -> Result<Base> {
        let (name, revision) = (&config.model_name_or_path, config.revision.as_deref());
        let mut base = Base::open(name, revision, config.four_bit().as_ref(), observer)?;
        base.config.set_pooling(config.pooling)?;
        Ok(base)
    }

    /// Opens a model folder, a GGUF file or a hub model, and quantises its weights if that is asked for. Errors: what is missing or
    /// not supported, by name.
    pub fn open(
        name: &str,
        revision: Option<&str>,
        four_bit: Option<&LoadIn4Bit>,
        observer: &mut dyn Observer,
    ) -> Result<Base> {
        let dir = resolve(name, revision, observer)?;
        if dir.join(ADAPTER_CONFIG).exists() && !dir.join("config.json").exists() {
            return Err(Error::Config(format!(
                "{name} is an adapter, not a model: give its base model, and it as the adapter"
            )));
        }
        let config = ModelConfig::load(&dir)?;
        let mut checkpoint = Checkpoint::open(&dir)?;
        if let Some(four_bit) = four_bit {
            stage(observer, Stage::Quantization, 0, 1, name);
            checkpoint = four_bit.apply(checkpoint, &config)?;
            stage(observer, Stage::Quantization, 1, 1, name);
        }
        Ok(Base {
            checkpoint,
            tokenizer: TextTokenizer::load(&dir)?,
            generation: GenerationConfig::load(&dir, &config)?,
            config,
            name: name.to_string(),
            revision: revision.map(str::to_string),
            dir,
        })
    }

    /// Computes, on any thread, the checksum of its weights and `config.json`; with all threads for `true`.
    pub(crate) fn checksum(&self) -> impl FnOnce(bool) -> Result<String> + Send + use<> {
        let (content, dir) = (self.checkpoint.content(), self.dir.clone());
        move |parallel| Ok(format!("{} {}", content.sha256(parallel)?, settings_sha256(&dir)?))
    }

    /// Longest input: what the model and its tokenizer allow.
    pub fn max_length(&self) -> usize {
        self.config.max_length().min(self.tokenizer.max_length().unwrap_or(usize::MAX))
    }

    /// Builds the model.
    pub fn model(&self, options: &LoadOptions) -> Result<Model> {
        Ok(Model::load(&self.checkpoint, &self.config, options)?)
    }

    /// The settings of a run's adapters, with the modules of the head among those that are saved.
    pub(crate) fn lora_config(&self, config: &TrainConfig, model: &Model) -> Result<LoraConfig> {
        let mut lora = config.lora_config();
        let heads = self.head_modules(model)?;
        if !heads.is_empty() {
            let saved = lora.modules_to_save.get_or_insert_default();
            saved.extend(heads.into_iter().filter(|h| !config.modules_to_save.contains(h)));
        }
        Ok(lora)
    }

    /// The head of a run's model if neither the checkpoint nor an adapter that is trained further has it, so that it begins at
    /// random.
    pub(crate) fn new_head(&self, config: &TrainConfig, model: &Model) -> Result<Option<NewHead>> {
        if config.adapter_name_or_path.is_some() {
            return Ok(None);
        }
        let Some(layout) = self.trained_head(model) else { return Ok(None) };
        let names = TensorNames::find(&self.checkpoint, &self.config)?;
        let paths = layout.layers().map(|l| l.path).chain(layout.norm.as_ref().map(|n| n.path));
        let modules = paths.filter(|path| !names.holds(&self.checkpoint, path)).map(str::to_string).collect();
        let regression = model.options().head == (HeadKind::Pooled { outputs: 1 });
        let head = NewHead { modules, width: self.config.hidden_size(), regression };
        Ok((!head.modules.is_empty()).then_some(head))
    }

    /// The head of a model; `None` for a language model.
    fn trained_head(&self, model: &Model) -> Option<HeadLayout> {
        let kind = model.options().head;
        self.config.head_layout(kind).filter(|_| kind != HeadKind::LanguageModel)
    }

    /// Modules of the head that must be fully trained: the output layers, as PEFT saves them, and every other layer of the
    /// head that the checkpoint lacks and that was therefore initialised at random. None for a language model.
    pub fn head_modules(&self, model: &Model) -> Result<Vec<String>> {
        let Some(layout) = self.trained_head(model) else { return Ok(Vec::new()) };
        let names = TensorNames::find(&self.checkpoint, &self.config)?;
        let mut out: Vec<String> = Vec::new();
        for layer in layout.layers().filter(|l| names.omits(&self.checkpoint, l)) {
            if !out.iter().any(|m| m == layer.module) {
                out.push(layer.module.to_string());
            }
        }
        Ok(out)
    }
}

/// Reports progress of a stage.
pub(crate) fn stage(observer: &mut dyn Observer, stage: Stage, done: u64, total: u64, detail: &str) {
    observer.event(&Event::Stage { stage, done, total, detail: detail.to_string() });
}

/// A path as text.
pub(crate) fn show(path: &Path) -> String {
    path.display().to_string()
}
