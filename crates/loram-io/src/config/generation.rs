//! `generation_config.json`: what the model's authors recommend for sampling.

use super::fields::{Fields, read_object};
use super::model::ModelConfig;
use crate::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// File name.
pub const GENERATION_FILE: &str = "generation_config.json";

/// Sampling defaults of a model; absent values stay `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GenerationConfig {
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// First token.
    pub bos_token_id: Option<u32>,
    /// Padding token.
    pub pad_token_id: Option<u32>,
    /// False means greedy decoding.
    pub do_sample: Option<bool>,
    /// Softmax temperature.
    pub temperature: Option<f64>,
    /// Nucleus sampling.
    pub top_p: Option<f64>,
    /// The k most likely tokens.
    pub top_k: Option<usize>,
    /// Penalty on tokens that occurred already; 1 is none.
    pub repetition_penalty: Option<f64>,
    /// New tokens at most.
    pub max_new_tokens: Option<usize>,
}

impl GenerationConfig {
    /// Reads the file of a model folder; without one, the default with the eos, bos and pad ids of `config`.
    pub fn load(dir: impl AsRef<Path>, config: &ModelConfig) -> Result<GenerationConfig> {
        let path = dir.as_ref().join(GENERATION_FILE);
        let mut out = if path.exists() {
            GenerationConfig::parse(&read_object(&path)?, &path)?
        } else {
            GenerationConfig::default()
        };
        if let ModelConfig::Decoder(c) = config {
            if out.eos_token_ids.is_empty() {
                out.eos_token_ids.clone_from(&c.eos_token_ids);
            }
            out.bos_token_id = out.bos_token_id.or(c.bos_token_id);
            out.pad_token_id = out.pad_token_id.or(c.pad_token_id);
        }
        Ok(out)
    }

    /// The settings in a JSON object; `path` is used in errors.
    pub fn parse(raw: &Map<String, Value>, path: &Path) -> Result<GenerationConfig> {
        let f = Fields { map: raw, path, prefix: "" };
        Ok(GenerationConfig {
            eos_token_ids: f.tokens("eos_token_id", &[])?,
            bos_token_id: f.token("bos_token_id", None)?,
            pad_token_id: f.token("pad_token_id", None)?,
            do_sample: f.get("do_sample").map(|_| f.bool("do_sample", false)).transpose()?,
            temperature: f.opt_f64("temperature")?,
            top_p: f.opt_f64("top_p")?,
            top_k: f.opt_usize("top_k")?,
            repetition_penalty: f.opt_f64("repetition_penalty")?,
            max_new_tokens: f.opt_usize("max_new_tokens")?,
        })
    }
}
