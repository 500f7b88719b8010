//! `config.json` of every supported family, as transformers 4 and transformers 5 write it.

mod decoder;
mod encoder;
mod fields;
mod generation;
mod head;
mod names;
mod rope;

pub use decoder::{DECODER_FAMILIES, DecoderConfig, LayerKind};
pub use encoder::{ENCODER_FAMILIES, EncoderConfig};
pub use generation::GenerationConfig;
pub use head::{Activation, Head, Labels, ProblemType, head_entries};
pub use names::TensorNames;
pub use rope::{RopeConfig, RopeScaling};

use crate::{Error, Result};
use fields::Fields;
use serde_json::{Map, Value};
use std::path::Path;

/// File name of the model configuration.
pub const CONFIG_FILE: &str = "config.json";

/// The configuration of a supported model.
#[derive(Debug, Clone)]
pub enum ModelConfig {
    /// A decoder-only language model.
    Decoder(DecoderConfig),
    /// A bidirectional encoder.
    Encoder(EncoderConfig),
}

impl ModelConfig {
    /// Reads `config.json` of a model folder. Errors name the field; an unsupported `model_type` is named together with
    /// the supported ones.
    pub fn load(dir: impl AsRef<Path>) -> Result<ModelConfig> {
        let path = dir.as_ref().join(CONFIG_FILE);
        if !path.exists() {
            let what = format!("no {CONFIG_FILE}: not a model folder");
            return Err(Error::NotFound { path: dir.as_ref().to_path_buf(), what });
        }
        ModelConfig::parse(read_object(&path)?, &path)
    }

    /// As [`ModelConfig::load`], for what needs the weights only: `None` for an architecture that does not run here, and for
    /// a folder without `config.json`.
    pub fn load_known(dir: impl AsRef<Path>) -> Result<Option<ModelConfig>> {
        let path = dir.as_ref().join(CONFIG_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let raw = read_object(&path)?;
        let family = raw.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let known = DECODER_FAMILIES.contains(&family) || ENCODER_FAMILIES.contains(&family);
        known.then(|| ModelConfig::parse(raw, &path)).transpose()
    }

    /// The configuration in a JSON object; `path` is used in errors.
    pub fn parse(raw: Map<String, Value>, path: &Path) -> Result<ModelConfig> {
        let f = Fields { map: &raw, path, prefix: "" };
        let supported = || [&DECODER_FAMILIES[..], &ENCODER_FAMILIES[..]].concat().join(", ");
        let family = match f.opt_str("model_type")? {
            Some(t) => t,
            None => return Err(f.error("model_type", format!("is missing; supported: {}", supported()))),
        };
        refuse_quantised(&raw, path)?;
        let decoder = DECODER_FAMILIES.contains(&family);
        if !decoder && !ENCODER_FAMILIES.contains(&family) {
            let why = if family.contains("moe") || family == "mixtral" {
                " (mixture of experts)"
            } else if ["vision_config", "text_config", "audio_config"].iter().any(|k| f.get(k).is_some()) {
                " (multimodal)"
            } else {
                ""
            };
            let what = format!("architecture `{family}`{why} is not supported; supported: {}", supported());
            return Err(f.error("model_type", what));
        }
        for part in ["vision_config", "text_config", "audio_config"] {
            if f.get(part).is_some() {
                return Err(f.error(part, "multimodal models are not supported"));
            }
        }
        if decoder {
            decoder::parse(&f, family).map(ModelConfig::Decoder)
        } else {
            encoder::parse(&f, family).map(ModelConfig::Encoder)
        }
    }

    /// `model_type`.
    pub fn family(&self) -> &str {
        match self {
            ModelConfig::Decoder(c) => &c.family,
            ModelConfig::Encoder(c) => &c.family,
        }
    }

    /// Width of the model.
    pub fn hidden_size(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.hidden_size,
            ModelConfig::Encoder(c) => c.hidden_size,
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.vocab_size,
            ModelConfig::Encoder(c) => c.vocab_size,
        }
    }

    /// Longest input in tokens that the model is made for.
    pub fn max_length(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.max_length(),
            ModelConfig::Encoder(c) => c.max_length(),
        }
    }

    /// The class name in `architectures` of this family with a head, e.g. `BertForSequenceClassification`.
    pub fn class_name(&self, head: &Head) -> String {
        let stem = match self.family() {
            "llama" => "Llama",
            "mistral" => "Mistral",
            "qwen2" => "Qwen2",
            "qwen3" => "Qwen3",
            "smollm3" => "SmolLM3",
            "roberta" => "Roberta",
            "xlm-roberta" => "XLMRoberta",
            "distilbert" => "DistilBert",
            _ => "Bert",
        };
        match head {
            Head::Base => format!("{stem}Model"),
            Head::CausalLm => format!("{stem}ForCausalLM"),
            Head::SequenceClassification => format!("{stem}ForSequenceClassification"),
            Head::Other(name) => name.clone(),
        }
    }

    /// What the checkpoint has on top.
    pub fn head(&self) -> &Head {
        match self {
            ModelConfig::Decoder(c) => &c.head,
            ModelConfig::Encoder(c) => &c.head,
        }
    }

    /// Labels of the head.
    pub fn labels(&self) -> &Labels {
        match self {
            ModelConfig::Decoder(c) => &c.labels,
            ModelConfig::Encoder(c) => &c.labels,
        }
    }

    /// The file as it was read.
    pub fn raw(&self) -> &Map<String, Value> {
        match self {
            ModelConfig::Decoder(c) => &c.raw,
            ModelConfig::Encoder(c) => &c.raw,
        }
    }
}

/// An error when `config.json` says that the weights are quantised.
fn refuse_quantised(raw: &Map<String, Value>, path: &Path) -> Result<()> {
    let f = Fields { map: raw, path, prefix: "" };
    let Some(q) = f.get("quantization_config") else { return Ok(()) };
    let method = q.get("quant_method").and_then(Value::as_str).unwrap_or("unknown method");
    let what = format!("quantised weights ({method}) are not supported: use the unquantised model");
    Err(f.error("quantization_config", what))
}

/// Reads a JSON file that holds an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?;
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::json(path, "expected a JSON object")),
        Err(e) => Err(Error::json(path, format!("not valid JSON: {e}"))),
    }
}
