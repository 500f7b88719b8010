//! Why a folder is no model folder.

use super::index::{INDEX_FILE, SINGLE_FILE};
use std::path::Path;

/// Explains why a folder without safetensors files cannot be opened, and how to fix it.
pub(super) fn no_safetensors(dir: &Path) -> String {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .map(|d| d.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    let find = |suffixes: &[&str]| names.iter().find(|n| suffixes.iter().any(|s| n.ends_with(s)));
    if names.iter().any(|n| n == "adapter_model.safetensors" || n == "adapter_model.bin") {
        return "is an adapter folder, not a model: give the base model here and this folder as the adapter".into();
    }
    if dir.join("adapter/adapter_config.json").exists() {
        let adapter = dir.join("adapter");
        return format!("is a run folder, not a model: its adapter is {}", adapter.display());
    }
    if let Some(pickle) = find(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"]) {
        return format!(
            "holds `{pickle}` but no safetensors: pickled files can run code and are never loaded; convert once with \
             `python -c \"from transformers import AutoModel as M; m = M.from_pretrained('{d}'); m.save_pretrained('{d}')\"` \
             (AutoModelForCausalLM for a language model), or take a revision of the model that has safetensors",
            d = dir.display()
        );
    }
    if let Some(gguf) = find(&[".gguf"]) {
        return format!("holds `{gguf}` but no safetensors: give the GGUF file itself, {}", dir.join(gguf).display());
    }
    if names.iter().any(|n| n == "model_index.json") {
        let part =
            ["transformer", "unet"].iter().find(|part| names.iter().any(|n| n == *part)).unwrap_or(&"transformer");
        return format!("is a pipeline of diffusers: give the folder of its model, {}", dir.join(part).display());
    }
    if let Some(other) = find(&[".safetensors"]) {
        return format!("holds `{other}`, but neither `{SINGLE_FILE}` nor `{INDEX_FILE}`: the index is missing");
    }
    format!("holds neither `{SINGLE_FILE}` nor `{INDEX_FILE}`: not a model folder")
}
