//! `LoraConfig` with PEFT's keys and meanings.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Which modules get an adapter, as PEFT writes it: a list of names, or one string.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum TargetModules {
    /// Full module paths, or their last parts.
    Names(Vec<String>),
    /// A regular expression that must match the full path.
    Regex(String),
    /// `all-linear`: every linear layer but the output layer.
    AllLinear,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    One(String),
    Many(Vec<String>),
}

impl From<Written> for TargetModules {
    fn from(w: Written) -> TargetModules {
        match w {
            Written::One(s) if s.eq_ignore_ascii_case("all-linear") => TargetModules::AllLinear,
            Written::One(s) => TargetModules::Regex(s),
            Written::Many(v) => TargetModules::Names(v),
        }
    }
}

impl From<TargetModules> for Written {
    fn from(t: TargetModules) -> Written {
        match t {
            TargetModules::Names(v) => Written::Many(v),
            TargetModules::Regex(s) => Written::One(s),
            TargetModules::AllLinear => Written::One("all-linear".into()),
        }
    }
}

impl std::fmt::Display for TargetModules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TargetModules::Names(v) => f.write_str(&v.join(", ")),
            TargetModules::Regex(s) => write!(f, "/{s}/"),
            TargetModules::AllLinear => f.write_str("all-linear"),
        }
    }
}

/// One number or several, as PEFT writes `layers_to_transform` and `layers_pattern`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany<T> {
    /// A single value.
    One(T),
    /// A list.
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    /// The values.
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(x) => std::slice::from_ref(x),
            OneOrMany::Many(v) => v,
        }
    }
}

/// The settings of a LoRA adapter, with the names, meanings and defaults of PEFT 0.21 (`peft.LoraConfig`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// Rank.
    pub r: usize,
    /// Numerator of the scaling.
    pub lora_alpha: f64,
    /// Probability of dropping an input of A in training.
    pub lora_dropout: f64,
    /// Modules that get an adapter.
    pub target_modules: TargetModules,
    /// Modules that do not, whatever `target_modules` says.
    pub exclude_modules: Option<TargetModules>,
    /// Ranks of modules whose path matches (pattern → rank).
    pub rank_pattern: BTreeMap<String, usize>,
    /// `lora_alpha` of modules whose path matches (pattern → value).
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Indices of the blocks that get adapters; all when absent.
    pub layers_to_transform: Option<OneOrMany<usize>>,
    /// Name of the list of blocks, where it is not the first number in a path.
    pub layers_pattern: Option<OneOrMany<String>>,
    /// Modules that are trained whole beside the adapters.
    pub modules_to_save: Option<Vec<String>>,
    /// Scaling `lora_alpha/sqrt(r)` instead of `lora_alpha/r` (2312.03732).
    pub use_rslora: bool,
    /// Weight decomposition (2402.09353).
    pub use_dora: bool,
    /// Which biases are trained.
    pub bias: String,
    /// The layer stores its weight transposed (Conv1D).
    pub fan_in_fan_out: bool,
    /// The start, as PEFT writes it: true, "gaussian", "pissa", …
    pub init_lora_weights: Value,
}

impl Default for LoraConfig {
    fn default() -> LoraConfig {
        LoraConfig {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: TargetModules::AllLinear,
            exclude_modules: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            layers_to_transform: None,
            layers_pattern: None,
            modules_to_save: None,
            use_rslora: false,
            use_dora: false,
            bias: "none".into(),
            fan_in_fan_out: false,
            init_lora_weights: Value::Bool(true),
        }
    }
}

impl LoraConfig {
    /// `lora_alpha/r`, or `lora_alpha/sqrt(r)` with rsLoRA.
    pub fn scaling(&self, lora_alpha: f64, r: usize) -> f64 {
        lora_alpha / if self.use_rslora { (r as f64).sqrt() } else { r as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_modules_are_read_as_peft_writes_them() {
        let read = |s: &str| serde_json::from_str::<TargetModules>(s).unwrap();
        assert_eq!(read("\"all-linear\""), TargetModules::AllLinear);
        assert_eq!(read("\".*_proj\""), TargetModules::Regex(".*_proj".into()));
        assert_eq!(read("[\"q_proj\"]"), TargetModules::Names(vec!["q_proj".into()]));
        for t in ["\"all-linear\"", "\"a.*\"", "[\"q\",\"v\"]"] {
            assert_eq!(serde_json::to_string(&read(t)).unwrap(), t);
        }
    }
}
