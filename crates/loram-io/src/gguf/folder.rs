//! The files of a model folder that a GGUF file stands for, beside the weights.

use super::config::config;
use super::file::GgufFile;
use super::tokenizer::{TokenizerFiles, tokenizer_files};
use crate::Result;
use crate::config::CONFIG_FILE;
use serde_json::Value;
use std::path::Path;

/// Names and contents of those files.
pub(crate) fn folder_files(path: &Path) -> Result<Vec<(&'static str, Value)>> {
    let file = GgufFile::open(path)?;
    let TokenizerFiles { tokenizer, settings } = tokenizer_files(&file)?;
    Ok(vec![
        (CONFIG_FILE, Value::Object(config(&file)?)),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", Value::Object(settings)),
    ])
}
