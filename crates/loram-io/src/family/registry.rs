//! The list of families, and `config.json` read by the one that it names.

use super::description::{Family, GgufFamily};
use super::{bert, distilbert, gpt2, llama, mistral, qwen2, qwen3, roberta, smollm3};
use crate::Result;
use crate::config::{CONFIG_FILE, FamilyNames, Fields, ModelConfig, not_a_model, read_object};
use crate::gguf::{self, GgufFile, is_gguf};
use serde_json::{Map, Value};
use std::path::Path;

/// Every family, in the order in which messages list them.
static FAMILIES: [&Family; 12] = [
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &smollm3::FAMILY,
    &bert::FAMILY,
    &roberta::FAMILY,
    &roberta::XLM,
    &distilbert::FAMILY,
    &gpt2::FAMILY,
    &gpt2::OPENAI_GPT,
    &gpt2::IMAGEGPT,
];

/// The family of a `model_type`.
pub(super) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.into_iter().find(|f| f.names.model_type == model_type)
}

/// The family of an architecture in GGUF files; without one, a list of those that there are.
pub(crate) fn of_gguf(architecture: &str) -> std::result::Result<(&'static FamilyNames, &'static GgufFamily), String> {
    let known = || FAMILIES.into_iter().filter_map(|f| Some((&f.names, f.gguf.as_ref()?)));
    let list = || known().map(|(_, gguf)| gguf.architecture).collect::<Vec<_>>().join(", ");
    known().find(|(_, gguf)| gguf.architecture == architecture).ok_or_else(list)
}

/// The `model_type`s of the families that run here.
pub fn supported() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().filter(|f| f.read.is_some()).map(|f| f.names.model_type)
}

fn list_supported() -> String {
    supported().collect::<Vec<_>>().join(", ")
}

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
        family.and_then(|f| f.read).map(|_| ModelConfig::parse(raw, &path)).transpose()
    }

    /// The configuration in a JSON object; `path` is used in errors.
    pub fn parse(raw: Map<String, Value>, path: &Path) -> Result<ModelConfig> {
        let f = Fields { map: &raw, path, prefix: "" };
        let Some(model_type) = f.opt_str("model_type")? else {
            return Err(f.error("model_type", format!("is missing; supported: {}", list_supported())));
        };
        f.refuse_quantised()?;
        const PARTS: [&str; 3] = ["vision_config", "text_config", "audio_config"];
        let multimodal = PARTS.into_iter().find(|part| f.get(part).is_some());
        let Some(read) = find(model_type).and_then(|family| family.read) else {
            let why = match multimodal {
                _ if model_type.contains("moe") || model_type == "mixtral" => " (mixture of experts)",
                Some(_) => " (multimodal)",
                None => "",
            };
            let what = format!("architecture `{model_type}`{why} is not supported; supported: {}", list_supported());
            return Err(f.error("model_type", what));
        };
        match multimodal {
            Some(part) => Err(f.error(part, "multimodal models are not supported")),
            None => read(&f),
        }
    }
}
