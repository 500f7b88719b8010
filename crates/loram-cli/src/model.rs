//! Models and adapters that commands name: folders or hub ids.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::progress::Show;
use clap::Args;
use loram_io::{Adapter, Checkpoint, LoadIn4Bit, ModelConfig};
use loram_train::{Objective, SessionOptions, TrainConfig};
use std::path::PathBuf;

/// The model of a command, and optionally an adapter for it.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(true))]
pub struct ModelArgs {
    /// Model folder, GGUF file or hub id [default: the base model that the adapter names]
    #[arg(long, group = "source", value_name = "DIR|HUB_ID", visible_alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Adapter folder or hub id
    #[arg(long, group = "source", value_name = "DIR|HUB_ID", alias = "adapter-name-or-path")]
    pub adapter: Option<String>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
}

impl ModelArgs {
    /// The options that open these for evaluation or generation as `config` says.
    pub fn session(&self, task: Option<&'static dyn Objective>, config: &TrainConfig) -> SessionOptions {
        SessionOptions {
            model: self.model.clone().unwrap_or_default(),
            revision: self.revision.clone(),
            adapter: self.adapter.clone(),
            task,
            weights: config.base_weights(),
            device: config.device,
            compute_dtype: config.compute_dtype,
        }
    }
}

/// The folder of a model or an adapter; a hub id is downloaded first, with a progress bar.
pub fn folder(name: &str, revision: Option<&str>, console: &Console) -> Result<PathBuf> {
    Ok(loram_train::resolve(name, revision, &mut Show::new(console))?)
}

/// The configuration and the weights of a model.
pub fn open(name: &str, revision: Option<&str>, console: &Console) -> Result<(ModelConfig, Checkpoint)> {
    let dir = folder(name, revision, console)?;
    Ok((ModelConfig::load(&dir)?, Checkpoint::open(&dir)?))
}

/// The checkpoint with its weights quantised, if that is asked for; `config` is that of an architecture that loram knows.
pub fn in_4bit(
    checkpoint: Checkpoint,
    config: Option<&ModelConfig>,
    four_bit: Option<&LoadIn4Bit>,
) -> Result<Checkpoint> {
    match (four_bit, config) {
        (None, _) => Ok(checkpoint),
        (Some(four_bit), Some(config)) => Ok(four_bit.apply(checkpoint, config)?),
        (Some(_), None) => Err(Error::Usage(
            "load_in_4bit: loram does not know this architecture, and which modules to quantise".into(),
        )),
    }
}

/// The same, without a configuration if loram does not know the architecture.
pub fn open_known(name: &str, revision: Option<&str>, console: &Console) -> Result<(Option<ModelConfig>, Checkpoint)> {
    let dir = folder(name, revision, console)?;
    Ok((ModelConfig::load_known(&dir)?, Checkpoint::open(&dir)?))
}

/// The configuration and the weights of the base model: the given one, else that in the adapter. Weights that were quantised while
/// they were read are so again, unless the ones as they are stored are asked for.
pub fn open_base(
    given: Option<&str>,
    adapter: &Adapter,
    revision: Option<&str>,
    unquantised: bool,
    console: &Console,
) -> Result<(String, ModelConfig, Checkpoint)> {
    let named = given.map(str::to_string).or_else(|| adapter.base_model.clone());
    let name =
        named.ok_or_else(|| Error::Usage("the adapter does not name its base model: give it with --model".into()))?;
    let own = adapter.revision.as_deref().filter(|_| given.is_none());
    let opened = open(&name, revision.or(own), console);
    let opened = opened.and_then(|(config, checkpoint)| {
        let checkpoint = in_4bit(checkpoint, Some(&config), adapter.loaded_in_4bit().filter(|_| !unquantised))?;
        Ok((config, checkpoint))
    });
    let (config, checkpoint) = opened.map_err(|e| match given {
        Some(_) => e,
        None => Error::Usage(format!("the base model that the adapter names: {e} (or name the base with --model)")),
    })?;
    Ok((name, config, checkpoint))
}
