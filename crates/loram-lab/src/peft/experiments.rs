//! Experiment folders of the PEFT project as arms of a grid.
//!
//! An experiment is a folder `METHOD/NAME` with `adapter_config.json` (absent in full fine-tuning) and, if it departs
//! from the defaults, `training_params.json`; `default_training_params.json` is beside the folder of experiments.

use crate::{Error, Result};
use loram_train::config::{Mark, marked};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// A folder of experiments.
#[derive(Debug, Clone)]
pub struct Experiments {
    /// Keys of every run, from `default_training_params.json`.
    pub base: Map<String, Value>,
    /// The experiments, in alphabetical order.
    pub experiments: Vec<Experiment>,
}

/// One experiment.
#[derive(Debug, Clone)]
pub struct Experiment {
    /// Its folder below the folder of experiments, `METHOD/NAME`.
    pub name: String,
    /// Keys of a training configuration that it sets.
    pub keys: Map<String, Value>,
}

/// Modules that the project adapts if an adapter names none: PEFT's choice for Llama.
const LLAMA_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// Reads a folder of experiments, or a single experiment. Errors name a setting that is not supported.
pub fn read_experiments(dir: &Path) -> Result<Experiments> {
    if !dir.is_dir() {
        return Err(Error::folder(
            dir,
            "no such folder; expected a folder of experiments, each with an adapter_config.json",
        ));
    }
    let mut folders = Vec::new();
    find(dir, 3, &mut folders);
    if folders.is_empty() {
        return Err(Error::folder(dir, "no experiment in it: expected folders with adapter_config.json"));
    }
    let defaults = dir.ancestors().take(4).map(|d| d.join("default_training_params.json")).find(|p| p.exists());
    let base = match defaults {
        Some(path) => training(&path, &read(&path)?)?,
        None => Map::new(),
    };
    let experiments = folders.iter().map(|f| experiment(dir, f)).collect::<Result<Vec<_>>>()?;
    Ok(Experiments { base, experiments })
}

fn find(dir: &Path, depth: usize, out: &mut Vec<PathBuf>) {
    if dir.join("adapter_config.json").exists() || dir.join("training_params.json").exists() {
        out.push(dir.to_path_buf());
        return;
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = entries.map(|e| e.path()).filter(|p| p.is_dir()).collect();
    below.sort();
    if depth > 0 {
        below.iter().for_each(|d| find(d, depth - 1, out));
    }
}

fn read(path: &Path) -> Result<Map<String, Value>> {
    let text = loram_io::input::read_text(path)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::folder(path, "expected a JSON object")),
        Err(e) => Err(Error::folder(path, format!("malformed JSON: {e}"))),
    }
}

fn experiment(root: &Path, dir: &Path) -> Result<Experiment> {
    let name = match dir.strip_prefix(root) {
        Ok(rest) if !rest.as_os_str().is_empty() => rest.display().to_string(),
        _ => dir.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let (config, params) = (dir.join("adapter_config.json"), dir.join("training_params.json"));
    let mut keys = match config.exists() {
        true => adapter(&config, &read(&config)?)?,
        false => Map::from_iter([("finetuning_type".to_string(), json!("full"))]),
    };
    if params.exists() {
        keys.extend(training(&params, &read(&params)?)?);
    }
    Ok(Experiment { name, keys })
}

fn adapter(path: &Path, config: &Map<String, Value>) -> Result<Map<String, Value>> {
    let get = |key: &str| config.get(key).filter(|v| !v.is_null());
    let refuse = |key: &str, found: &Value, expected: &str| {
        Err(Error::folder(path, format!("{key}: found {found}, expected {expected}")))
    };
    if let Some(kind) = get("peft_type").filter(|k| *k != "LORA") {
        return refuse("peft_type", kind, "\"LORA\": other methods are not supported");
    }
    for key in ["use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"] {
        if let Some(on) = get(key).filter(|v| **v != json!(false)) {
            return refuse(key, on, "false");
        }
    }
    if let Some(bias) = get("bias").filter(|b| *b != "none") {
        return refuse("bias", bias, "\"none\"");
    }
    let mut out = Map::new();
    for key in marked(Mark::Peft) {
        out.extend(get(key.name).map(|value| (key.name.to_string(), value.clone())));
    }
    out.entry("target_modules").or_insert(json!(LLAMA_TARGETS));
    let init = match get("init_lora_weights") {
        None | Some(Value::Bool(true)) => "lora".to_string(),
        Some(Value::String(s)) => s.replace('_', "-"),
        Some(other) => return refuse("init_lora_weights", other, "true or the name of a scheme"),
    };
    out.insert("init_lora_weights".into(), json!(init));
    Ok(out)
}

/// The project's training parameters as keys of a training configuration.
fn training(path: &Path, params: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    let mut put = |key: &str, value: &Value| drop(out.insert(key.to_string(), value.clone()));
    for (key, value) in params {
        match key.as_str() {
            "model_id" => put("model_name_or_path", value),
            "max_seq_length" => put("max_length", value),
            "batch_size" => put("per_device_train_batch_size", value),
            "batch_size_eval" => put("per_device_eval_batch_size", value),
            "max_steps" | "eval_steps" | "seed" => put(key, value),
            "grad_norm_clip" => put("max_grad_norm", value),
            "lr_scheduler" => match value.as_str() {
                Some("cosine") => put("lr_scheduler_type", value),
                None if value.is_null() => put("lr_scheduler_type", &json!("constant")),
                _ => {
                    return Err(Error::folder(
                        path,
                        format!("lr_scheduler: found {value}, expected \"cosine\" or null"),
                    ));
                }
            },
            "optimizer_type" if value.as_str().is_some_and(|s| s.eq_ignore_ascii_case("adamw")) => {}
            "optimizer_type" => {
                return Err(Error::folder(path, format!("optimizer_type: found {value}, expected \"AdamW\"")));
            }
            "optimizer_kwargs" => {
                for (name, value) in value.as_object().into_iter().flatten() {
                    match name.as_str() {
                        "lr" => put("learning_rate", value),
                        "weight_decay" => put("weight_decay", value),
                        _ => {
                            let what = format!("optimizer_kwargs.{name}: expected lr and weight_decay only");
                            return Err(Error::folder(path, what));
                        }
                    }
                }
            }
            // settings of GPUs and of generation
            _ => {}
        }
    }
    Ok(out)
}
