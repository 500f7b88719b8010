//! `adapter_config.json` with the keys and defaults of PEFT 0.21.

use crate::{Error, Result};
use loram_core::LoraConfig;
use serde_json::{Map, Value};
use std::path::Path;

/// File name of the adapter's configuration.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Version of PEFT whose layout is written.
pub const PEFT_VERSION: &str = "0.21.0";

/// Every key that PEFT 0.21 writes for LoRA, with its default.
const DEFAULTS: &str = r#"{
  "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
  "base_model_name_or_path": null, "bias": "none", "corda_config": null, "ensure_weight_tying": false,
  "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
  "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
  "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8, "lora_bias": false, "lora_dropout": 0.0,
  "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
  "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.0", "qalora_group_size": 16, "r": 8,
  "rank_pattern": {}, "revision": null, "target_modules": null, "target_parameters": null, "task_type": null,
  "trainable_token_indices": null, "use_bdlora": null, "use_dora": false, "use_qalora": false,
  "use_rslora": false, "velora_config": null
}"#;

fn defaults() -> Map<String, Value> {
    serde_json::from_str(DEFAULTS).expect("a JSON object")
}

/// The typed part of a configuration as PEFT writes it. Errors name the key that is malformed or asks for a kind of
/// adapter that is not supported.
pub(super) fn decode(raw: &Map<String, Value>, path: &Path) -> Result<LoraConfig> {
    let error = |field: &str, what: String| Error::Config { path: path.to_path_buf(), field: field.into(), what };
    match raw.get("peft_type").and_then(Value::as_str) {
        Some("LORA") => {}
        Some(other) => return Err(error("peft_type", format!("`{other}` is not supported, only `LORA`"))),
        None => return Err(error("peft_type", "is missing: not an adapter configuration of PEFT".into())),
    }
    // these change what the factors mean; anything but absence would be silently wrong. fan_in_fan_out is none of them:
    // it says how the base stores its weight, which the base's tensors say by themselves
    let other_kinds = [
        "use_dora",
        "use_qalora",
        "layer_replication",
        "target_parameters",
        "alora_invocation_tokens",
        "use_bdlora",
        "velora_config",
        "monteclora_config",
        "arrow_config",
        "kasa_config",
        "megatron_config",
    ];
    for field in other_kinds {
        let value = raw.get(field).unwrap_or(&Value::Null);
        let off = match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(a) => a.is_empty(),
            Value::Object(o) => o.is_empty(),
            _ => false,
        };
        if !off {
            return Err(error(field, format!("{value} is not supported")));
        }
    }
    if let Some(bias) = raw.get("bias").filter(|b| !b.is_null() && *b != "none") {
        return Err(error("bias", format!("{bias} is not supported, only \"none\"")));
    }
    let known = defaults();
    let typed: Map<String, Value> = raw
        .iter()
        .filter(|(k, v)| known.contains_key(*k) && !v.is_null())
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    serde_json::from_value(Value::Object(typed))
        .map_err(|e| Error::json(path, format!("malformed adapter configuration: {e}")))
}

/// The file's object: keys that were read and that we do not know stay, all keys of PEFT are there, sorted as PEFT
/// sorts them.
pub(super) fn encode(raw: &Map<String, Value>, set: Map<String, Value>) -> Map<String, Value> {
    let known = defaults();
    let mut all: std::collections::BTreeMap<String, Value> = raw.clone().into_iter().collect();
    for (key, value) in known.clone() {
        all.entry(key).or_insert(value);
    }
    for (key, value) in set {
        if known.contains_key(&key) {
            let value = if key.contains("alpha") { whole_numbers(value) } else { value };
            all.insert(key, value);
        }
    }
    all.into_iter().collect()
}

/// `16.0` as `16`: PEFT and vLLM declare `lora_alpha` as an integer.
fn whole_numbers(value: Value) -> Value {
    match value {
        Value::Number(n) => match n.as_f64() {
            Some(x) if n.is_f64() && x.fract() == 0.0 && x.abs() < 1e15 => Value::from(x as i64),
            _ => Value::Number(n),
        },
        Value::Object(map) => map.into_iter().map(|(k, v)| (k, whole_numbers(v))).collect(),
        other => other,
    }
}
