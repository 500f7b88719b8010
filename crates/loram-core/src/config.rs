//! `LoraConfig` with PEFT's keys and meanings.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The modules that get an adapter, as PEFT writes it: a list of names, or one string.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub enum TargetModules {
    /// Full module paths, or their last parts.
    Names(Vec<String>),
    /// A regular expression that must match the full path.
    Regex(String),
    /// `all-linear`: every linear layer but the output layer.
    #[default]
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

/// Tokens whose rows of an embedding are trained, as PEFT writes them: those of the token embedding, or those of each module
/// that is named by its path or the end of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Of the token embedding.
    Embedding(Vec<u32>),
    /// Of embeddings and heads by name.
    Modules(BTreeMap<String, Vec<u32>>),
}

impl TokenIndices {
    /// True when no token is named.
    pub fn is_empty(&self) -> bool {
        match self {
            TokenIndices::Embedding(ids) => ids.is_empty(),
            TokenIndices::Modules(map) => map.values().all(Vec::is_empty),
        }
    }

    /// The tokens of the module `path`; `embedding` is the path of the token embedding.
    pub fn of(&self, path: &str, embedding: &str) -> Option<&[u32]> {
        let ids = match self {
            TokenIndices::Embedding(ids) => (path == embedding).then_some(ids),
            TokenIndices::Modules(map) => map.iter().find(|(name, _)| module_ends_with(path, name)).map(|(_, ids)| ids),
        };
        ids.filter(|ids| !ids.is_empty()).map(Vec::as_slice)
    }

    /// The names of modules that are none of `paths`.
    pub fn unknown<'a>(&'a self, paths: &[String]) -> Vec<&'a str> {
        match self {
            TokenIndices::Embedding(_) => Vec::new(),
            TokenIndices::Modules(map) => {
                map.keys().filter(|name| !paths.iter().any(|p| module_ends_with(p, name))).map(String::as_str).collect()
            }
        }
    }
}

/// True if a module path is `name` or ends with `.name`, as PEFT finds the modules of `modules_to_save`.
pub fn module_ends_with(path: &str, name: &str) -> bool {
    path.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// PEFT writes `null` where it means the default.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
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
    #[serde(deserialize_with = "or_default")]
    pub target_modules: TargetModules,
    /// Modules that do not, whatever `target_modules` says.
    pub exclude_modules: Option<TargetModules>,
    /// Ranks of modules whose path matches (pattern → rank).
    #[serde(deserialize_with = "or_default")]
    pub rank_pattern: BTreeMap<String, usize>,
    /// `lora_alpha` of modules whose path matches (pattern → value).
    #[serde(deserialize_with = "or_default")]
    pub alpha_pattern: BTreeMap<String, f64>,
    /// Indices of the blocks that get adapters; all when absent.
    pub layers_to_transform: Option<OneOrMany<usize>>,
    /// Name of the list of blocks, where it is not the first number in a path.
    pub layers_pattern: Option<OneOrMany<String>>,
    /// Modules that are fully trained beside the adapters.
    pub modules_to_save: Option<Vec<String>>,
    /// Tokens whose rows of the embedding are trained.
    pub trainable_token_indices: Option<TokenIndices>,
    /// A head that shares the embedding's weight gets every change of the embedding.
    pub ensure_weight_tying: bool,
    /// B has a bias.
    pub lora_bias: bool,
    /// Scaling `lora_alpha/sqrt(r)` instead of `lora_alpha/r` (2312.03732).
    pub use_rslora: bool,
    /// Weight decomposition (2402.09353).
    pub use_dora: bool,
    /// The biases that are trained.
    pub bias: String,
    /// The layer stores its weight transposed (Conv1D).
    pub fan_in_fan_out: bool,
    /// The initialisation, as PEFT writes it: true, "gaussian", "pissa", …
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
            trainable_token_indices: None,
            ensure_weight_tying: false,
            lora_bias: false,
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

    /// One line for each setting that asks for an adapter of another kind than this crate's: see [`unsupported_keys`].
    pub fn unsupported(&self) -> Vec<String> {
        match serde_json::to_value(self) {
            Ok(Value::Object(map)) => unsupported_keys(&map),
            _ => Vec::new(),
        }
    }
}

/// Keys of PEFT 0.21's `LoraConfig` that change what the factors mean, and are not implemented here.
const OTHER_KINDS: [(&str, &str); 13] = [
    ("use_dora", "weight decomposition (DoRA)"),
    ("bias", "trained biases; only \"none\""),
    ("fan_in_fan_out", "weights stored as (in, out)"),
    ("layer_replication", "replicated layers"),
    ("target_parameters", "adapters on bare parameters"),
    ("alora_invocation_tokens", "activated LoRA"),
    ("use_qalora", "QA-LoRA"),
    ("use_bdlora", "block-diagonal LoRA"),
    ("velora_config", "VeLoRA"),
    ("monteclora_config", "MonteCLoRA"),
    ("arrow_config", "Arrow routing"),
    ("kasa_config", "KaSA"),
    ("megatron_config", "Megatron's parallel layers"),
];

/// One line for each key of an `adapter_config.json` that asks for an adapter of another kind than this crate's; reading
/// its factors as plain LoRA would be silently wrong. Keys that are absent, null, false or empty ask for nothing, and
/// those that only concern how a new adapter is initialised (`eva_config`, `loftq_config`, …) are not looked at.
pub fn unsupported_keys(raw: &serde_json::Map<String, Value>) -> Vec<String> {
    let asks = |key: &str| match raw.get(key)? {
        Value::Null | Value::Bool(false) => None,
        Value::String(s) if s.is_empty() || key == "bias" && s == "none" => None,
        Value::Array(a) if a.is_empty() => None,
        Value::Object(o) if o.is_empty() => None,
        value => Some(value.clone()),
    };
    let line = |(key, what): &(&str, &str)| Some(format!("{key} = {}: {what} is not supported", asks(key)?));
    OTHER_KINDS.iter().filter_map(line).collect()
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

    #[test]
    fn defaults_nulls_and_round_trip() {
        let empty: LoraConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, LoraConfig::default());
        let text = r#"{"r": 4, "lora_alpha": 16, "rank_pattern": null, "alpha_pattern": null, "target_modules": null,
            "exclude_modules": ["lm_head"], "layers_to_transform": 3, "layers_pattern": ["h"], "init_lora_weights": "pissa",
            "peft_type": "LORA", "a_key_of_the_future": 1}"#;
        let c: LoraConfig = serde_json::from_str(text).unwrap();
        assert_eq!((c.r, c.lora_alpha, c.layers_to_transform.as_ref().unwrap().as_slice()), (4, 16.0, &[3usize][..]));
        let again: LoraConfig = serde_json::from_str(&serde_json::to_string(&c).unwrap()).unwrap();
        assert_eq!(c, again);
        assert_eq!(LoraConfig { use_rslora: true, ..c }.scaling(16.0, 4), 8.0);
    }

    #[test]
    fn other_kinds_of_adapters_are_named() {
        assert!(LoraConfig::default().unsupported().is_empty());
        let c = LoraConfig { use_dora: true, bias: "all".into(), ..Default::default() };
        let lines = c.unsupported();
        assert!(lines.len() == 2 && lines[0].contains("use_dora") && lines[1].contains("\"all\""), "{lines:?}");
        let raw = r#"{"bias": "none", "use_qalora": false, "layer_replication": [[0, 2]], "arrow_config": {},
            "megatron_core": "megatron.core", "loftq_config": {}, "target_parameters": null}"#;
        let lines = unsupported_keys(&serde_json::from_str(raw).unwrap());
        assert!(lines.len() == 1 && lines[0].contains("layer_replication"), "{lines:?}");
    }

    #[test]
    fn tokens_of_the_embedding_or_of_named_modules() {
        let read = |s: &str| serde_json::from_str::<TokenIndices>(s).unwrap();
        let (path, other) = ("model.embed_tokens", "lm_head");
        let list = read("[3, 5]");
        assert_eq!((list.of(path, path), list.of(other, path)), (Some(&[3, 5][..]), None));
        let map = read(r#"{"embed_tokens": [1], "lm_head": [], "tokens": [2]}"#);
        assert_eq!((map.of(path, path), map.of(other, path)), (Some(&[1][..]), None));
        assert_eq!(map.unknown(&[path.into(), other.into()]), ["tokens"], "the end of a part is no name");
        assert!(read("[]").is_empty() && !map.is_empty());
    }
}
