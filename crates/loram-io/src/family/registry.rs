//! The list of families, and `config.json` read by the one that it names.

use super::description::{Family, GgufFamily};
use super::nearest::nearest;
use super::{
    bert, deberta_v2, distilbert, exaone4, gemma2, gemma3, glm4, gpt_oss, gpt2, granite, lfm2, llama, minicpm,
    ministral3, mistral, mixtral, modernbert, olmo2, phi3, qwen2, qwen3, qwen3_moe, roberta, smollm3, tower,
};
use crate::Result;
use crate::config::{FamilyNames, Fields, ModelConfig, Quantisation};
use serde_json::{Map, Value};
use std::path::Path;

/// Every family, in the order in which messages list them.
static FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &smollm3::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &gemma3::TOWER,
    &granite::FAMILY,
    &granite::HYBRID,
    &phi3::FAMILY,
    &olmo2::FAMILY,
    &olmo2::OLMO3,
    &glm4::FAMILY,
    &exaone4::FAMILY,
    &minicpm::FAMILY,
    &ministral3::FAMILY,
    &ministral3::TOWER,
    &mixtral::FAMILY,
    &qwen3_moe::FAMILY,
    &gpt_oss::FAMILY,
    &lfm2::FAMILY,
    &gpt2::FAMILY,
    &bert::FAMILY,
    &roberta::FAMILY,
    &roberta::XLM,
    &distilbert::FAMILY,
    &modernbert::FAMILY,
    &deberta_v2::FAMILY,
    &gpt2::OPENAI_GPT,
    &gpt2::IMAGEGPT,
];

/// The family of a `model_type`.
pub(super) fn find(model_type: &str) -> Option<&'static Family> {
    FAMILIES.iter().copied().find(|f| f.names.model_type == model_type)
}

/// The family of an architecture in GGUF files; without one, a list of those that there are.
pub(crate) fn of_gguf(architecture: &str) -> std::result::Result<(&'static FamilyNames, &'static GgufFamily), String> {
    let known = || FAMILIES.iter().filter_map(|f| Some((&f.names, f.gguf.as_ref()?)));
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
    FAMILIES.iter().filter(|f| f.runs()).map(|f| f.names.model_type)
}

/// A family that runs here, as the documentation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FamilyInfo {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// The models of this architecture.
    pub about: &'static str,
    /// A language model; otherwise an encoder, for classification and regression alone.
    pub writes: bool,
    /// transformers has a class of it for token classification.
    pub tags_tokens: bool,
    /// Its architecture in GGUF files, where these are read.
    pub gguf: Option<&'static str>,
    /// The references that its results are compared with.
    pub checked: &'static str,
}

/// The families that run here.
pub fn families() -> impl Iterator<Item = FamilyInfo> {
    FAMILIES.iter().filter(|f| f.runs()).map(|f| FamilyInfo {
        model_type: f.names.model_type,
        about: f.about,
        writes: f.names.lm_head.is_some(),
        tags_tokens: f.names.tags_tokens,
        gguf: f.gguf.as_ref().map(|gguf| gguf.architecture),
        checked: f.checked,
    })
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
        let family = find(model_type);
        if let Some((family, default)) = family.and_then(|family| Some((family, family.text_tower?))) {
            return text_tower(&f, family, default);
        }
        let Some(read) = family.and_then(|family| family.read) else {
            let why = match multimodal {
                _ if model_type.contains("moe") => " (mixture of experts)",
                Some(_) => " (multimodal)",
                None => "",
            };
            let near = match nearest(model_type) {
                Some((near, difference)) => format!("the nearest supported one is `{near}`, but {difference}; "),
                None => String::new(),
            };
            let what =
                format!("architecture `{model_type}`{why} is not supported; {near}supported: {}", list_supported());
            return Err(f.error("model_type", what));
        };
        match multimodal {
            Some(part) => Err(f.error(part, "multimodal models are not supported")),
            None => read(&f),
        }
    }
}

/// The language model inside a checkpoint of several modalities.
fn text_tower(f: &Fields<'_>, family: &'static Family, default: &str) -> Result<ModelConfig> {
    let text = f.object("text_config")?.ok_or_else(|| f.error("text_config", "is missing"))?;
    let text = Fields { map: text, path: f.path, prefix: "text_config." };
    let model_type = text.opt_str("model_type")?.unwrap_or(default);
    let Some(read) = find(model_type).and_then(|family| family.read) else {
        let what = format!("architecture `{model_type}` is not supported; supported: {}", list_supported());
        return Err(text.error("model_type", what));
    };
    match read(&text)? {
        ModelConfig::Decoder(config) => tower::within(f, &family.names, config).map(ModelConfig::Decoder),
        ModelConfig::Encoder(_) => Err(text.error("model_type", "expected a language model")),
    }
}
