//! The PEFT project's MetaMathQA comparison: its experiment folders as arms, and results in its form.
//!
//! An experiment is a folder `METHOD/NAME` with `adapter_config.json` (absent in full fine-tuning) and, where it departs
//! from the defaults, `training_params.json`; `default_training_params.json` lies beside the folder of experiments. A
//! result is one JSON file with `run_info`, `train_info` and `meta_info`.

use crate::collect::RunRecord;
use crate::grid::Named;
use crate::{Error, Result};
use loram_train::config::{Mark, marked};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// What a folder of experiments says.
#[derive(Debug, Clone)]
pub struct Experiments {
    /// Keys of every run, from `default_training_params.json`.
    pub base: Map<String, Value>,
    /// One arm for each experiment.
    pub arms: Vec<Named>,
}

/// What that project trains where an adapter names no modules: PEFT's choice for Llama.
const LLAMA_TARGETS: [&str; 2] = ["q_proj", "v_proj"];

/// Reads a folder of experiments, or a single experiment. Errors name a setting that cannot be trained here.
pub fn read_experiments(dir: &Path) -> Result<Experiments> {
    if !dir.is_dir() {
        return Err(Error::folder(
            dir,
            "no such folder; expected one of experiments, each with an adapter_config.json",
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
    let arms = folders.iter().map(|f| arm(dir, f)).collect::<Result<Vec<_>>>()?;
    Ok(Experiments { base, arms })
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
    let text = std::fs::read_to_string(path).map_err(|e| loram_io::Error::io("read", path, e))?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::folder(path, "expected a JSON object")),
        Err(e) => Err(Error::folder(path, format!("malformed JSON: {e}"))),
    }
}

fn arm(root: &Path, dir: &Path) -> Result<Named> {
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
    Ok(Named { name, keys })
}

fn adapter(path: &Path, config: &Map<String, Value>) -> Result<Map<String, Value>> {
    let get = |key: &str| config.get(key).filter(|v| !v.is_null());
    let refuse = |key: &str, found: &Value, expected: &str| {
        Err(Error::folder(path, format!("{key}: found {found}, expected {expected}")))
    };
    if let Some(kind) = get("peft_type").filter(|k| *k != "LORA") {
        return refuse("peft_type", kind, "\"LORA\": other methods are not trained here");
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
        Some(other) => return refuse("init_lora_weights", other, "true or the name of a start"),
    };
    out.insert("init_lora_weights".into(), json!(init));
    Ok(out)
}

/// Keys of their training parameters under the names that they have here.
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
            // what says how their GPUs compute, and how answers are generated
            _ => {}
        }
    }
    Ok(out)
}

/// The result of a run in their form. What they measure on a GPU is the memory of the process here; the test accuracy is
/// that of generated answers there, and the metric of the grid here, under its own name.
pub fn result(run: &RunRecord) -> Value {
    let (s, c) = (&run.scores, &run.config);
    let get = |key: &str| c.get(key).unwrap_or(Value::Null);
    let scheme = run.summary["scheme"].as_str().unwrap_or("unknown");
    let mut metrics: Vec<Value> = Vec::new();
    for (step, loss) in run.eval_curve.steps.iter().zip(&run.eval_curve.values) {
        let train = run.train_curve.steps.iter().rposition(|s| s <= step).map(|i| run.train_curve.values[i]);
        metrics.push(json!({
            "step": *step as u64,
            "valid loss": loss,
            "train loss": train,
            "train samples": (*step as u64) * samples_per_step(run),
        }));
    }
    let mut last = json!({
        "step": run.summary["steps"],
        "train loss": run.summary["train_loss"],
        "train samples": run.summary["steps"].as_u64().map(|n| n * samples_per_step(run)),
        "train total tokens": run.summary["tokens"],
    });
    for (name, value) in s.test.iter().flat_map(|m| m.values()) {
        last[format!("test {}", name.replace('_', " "))] = json!(value);
    }
    if let Some(f) = &s.forgetting {
        last["forgetting"] = json!(f.after - f.before);
    }
    metrics.push(last);
    json!({
        "run_info": {
            "created_at": run.environment["started"],
            "total_time": s.cost.start_seconds + s.cost.train_seconds + s.cost.score_seconds,
            "experiment_name": experiment_name(run),
            "peft_branch": format!("loram {}", run.environment["loram"].as_str().unwrap_or("")),
            "train_config": {
                "model_id": c.model_name_or_path,
                "dtype": "float32",
                "max_seq_length": get("max_length"),
                "batch_size": c.per_device_train_batch_size,
                "batch_size_eval": c.per_device_eval_batch_size,
                "max_steps": run.summary["total_steps"],
                "eval_steps": get("eval_steps"),
                "compile": false,
                "seed": c.seed,
                "grad_norm_clip": c.max_grad_norm,
                "optimizer_type": c.optim.as_str(),
                "optimizer_kwargs": {"lr": c.learning_rate, "weight_decay": c.weight_decay},
                "lr_scheduler": get("lr_scheduler_type"),
            },
            "peft_config": {
                "peft_type": if scheme == "full" { Value::Null } else { json!("LORA") },
                "base_model_name_or_path": c.model_name_or_path,
                "r": c.r,
                "lora_alpha": c.alpha(),
                "lora_dropout": c.lora_dropout,
                "target_modules": get("target_modules"),
                "use_rslora": c.use_rslora,
                "init_lora_weights": if scheme == "lora" { json!(true) } else { json!(scheme) },
                "rank_pattern": get("rank_pattern"),
                "alpha_pattern": get("alpha_pattern"),
            },
            "error_msg": s.error.clone().unwrap_or_default(),
        },
        "train_info": {
            "accelerator_memory_max": s.cost.peak_rss,
            "train_time": s.cost.train_seconds,
            "file_size": s.cost.result_bytes,
            "num_trainable_params": s.cost.trainable_parameters,
            "num_total_params": run.summary["parameters"],
            "status": if s.error.is_none() { "success" } else { "failed" },
            "metrics": metrics,
        },
        "meta_info": {
            "model_info": {"sha": c.revision, "created_at": Value::Null},
            "dataset_info": {},
            "package_info": {"loram-version": run.environment["loram"]},
            "system_info": {
                "system": run.environment["os"],
                "machine": run.environment["arch"],
                "processor": run.environment["cpu"],
                "gpu": "none",
            },
            "pytorch_info": "",
        },
    })
}

fn samples_per_step(run: &RunRecord) -> u64 {
    (run.config.per_device_train_batch_size * run.config.gradient_accumulation_steps) as u64
}

/// Method and name, as their tables show them.
fn experiment_name(run: &RunRecord) -> String {
    let p = &run.scores.point;
    match p.arm.contains('/') {
        true => p.arm.clone(),
        false => {
            let rank = p.r.map_or(String::new(), |r| format!("-rank{r}"));
            format!("{}/{}{rank}-lr_{:e}-seed{}", p.arm, p.model, p.learning_rate, p.seed)
        }
    }
}

/// Writes the results of these runs into a folder, one file for each; gives how many.
pub fn write_results(runs: &[RunRecord], dir: &Path) -> Result<usize> {
    for run in runs {
        let name = format!("{}.json", experiment_name(run).replace('/', "--"));
        loram_io::atomic::write_json(dir.join(name), &result(run))?;
    }
    Ok(runs.len())
}
