//! The settings of a quantisation while a checkpoint is read.

use serde::{Deserialize, Serialize};

/// How the weights of a checkpoint are quantised while they are read, with the names of transformers' `BitsAndBytesConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadIn4Bit {
    /// `nf4` or `fp4`.
    pub bnb_4bit_quant_type: FourBitName,
    /// Quantise the scales as well.
    pub bnb_4bit_use_double_quant: bool,
    /// Modules that keep their weights, beside embeddings and output layers: beginnings or ends of paths.
    pub llm_int8_skip_modules: Vec<String>,
}

/// The name of a 4-bit type in transformers' configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FourBitName {
    /// NF4.
    #[default]
    Nf4,
    /// FP4.
    Fp4,
}

impl LoadIn4Bit {
    /// True for a module that keeps its weight: as in transformers, a name stands for the paths that begin with it or end in it.
    pub(crate) fn skips(&self, path: &str) -> bool {
        self.llm_int8_skip_modules.iter().any(|name| path.starts_with(name.as_str()) || path.ends_with(name.as_str()))
    }
}
