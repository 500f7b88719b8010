//! The list of families, and `config.json` read by the one that it names.

use super::description::{Family, GgufFamily};
use super::{bert, distilbert, gpt2, llama, mistral, qwen2, qwen3, roberta, smollm3};
use crate::Result;
use crate::config::{FamilyNames, Fields, ModelConfig, Quantisation};
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
    let list = || {
        let mut all: Vec<&str> = known().map(|(_, gguf)| gguf.architecture).collect();
        all.dedup();
        all.join(", ")
    };
    known().find(|(_, gguf)| gguf.architecture == architecture).ok_or_else(list)
}

/// The form in GGUF files of the family of a `model_type`.
pub(crate) fn gguf_of(model_type: &str) -> Option<(&'static FamilyNames, &'static GgufFamily)> {
    find(model_type).and_then(|f| Some((&f.names, f.gguf.as_ref()?)))
}

/// The `model_type`s of the families that run here.
pub fn supported() -> impl Iterator<Item = &'static str> {
    FAMILIES.iter().filter(|f| f.read.is_some()).map(|f| f.names.model_type)
}

fn list_supported() -> String {
    supported().collect::<Vec<_>>().join(", ")
}

impl ModelConfig {
    /// The configuration in a JSON object; `path` is used in errors.
    pub fn parse(raw: Map<String, Value>, path: &Path) -> Result<ModelConfig> {
        let f = Fields { map: &raw, path, prefix: "" };
        let Some(model_type) = f.opt_str("model_type")? else {
            return Err(f.error("model_type", format!("is missing; supported: {}", list_supported())));
        };
        Quantisation::of(&raw, path)?;
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
