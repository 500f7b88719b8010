//! The configuration of a model folder or GGUF file, read by the family that it names.

use super::registry::find;
use crate::Result;
use crate::config::{CONFIG_FILE, ModelConfig, not_a_model, read_object};
use crate::gguf::{self, GgufFile, is_gguf};
use serde_json::Value;
use std::path::Path;

impl ModelConfig {
    /// Reads `config.json` of a model folder, or the metadata of a GGUF file. Errors name the field; an unsupported `model_type` is named together with
    /// the supported ones.
    pub fn load(dir: impl AsRef<Path>) -> Result<ModelConfig> {
        if is_gguf(&dir) {
            return ModelConfig::parse(gguf::config(&GgufFile::open(dir.as_ref())?)?, dir.as_ref());
        }
        let path = dir.as_ref().join(CONFIG_FILE);
        if !path.exists() {
            return Err(not_a_model(dir.as_ref()));
        }
        ModelConfig::parse(read_object(&path)?, &path)
    }

    /// As [`ModelConfig::load`], for what needs the weights only: `None` for an architecture that does not run here, and for
    /// a folder without `config.json`.
    pub fn load_known(dir: impl AsRef<Path>) -> Result<Option<ModelConfig>> {
        if is_gguf(&dir) {
            return ModelConfig::load(dir).map(Some);
        }
        let path = dir.as_ref().join(CONFIG_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let raw = read_object(&path)?;
        let family = raw.get("model_type").and_then(Value::as_str).and_then(find);
        family.filter(|f| f.runs()).map(|_| ModelConfig::parse(raw, &path)).transpose()
    }
}
