//! Results in the form of the PEFT project: one JSON file for each run.

use crate::Result;
use crate::run_record::RunRecord;
use serde_json::{Value, json};
use std::path::Path;

/// The result of a run in the project's form, with `run_info`, `train_info` and `meta_info`. Memory is that of the process
/// instead of the GPU's; the score is the metric of the grid, under its own name, instead of the accuracy of generated
/// answers.
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
                "optimizer_kwargs": {"lr": run.learning_rate(), "weight_decay": c.weight_decay},
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
    run.config.per_device_train_batch_size.saturating_mul(run.config.gradient_accumulation_steps) as u64
}

/// Method and name, as the project's tables show them.
fn experiment_name(run: &RunRecord) -> String {
    let p = &run.scores.point;
    match p.arm.contains('/') {
        true => p.arm.clone(),
        false => {
            let rank = p.r.map_or(String::new(), |r| format!("-rank{r}"));
            format!("{}/{}{rank}-lr_{}-seed{}", p.arm, p.model, p.learning_rate, p.seed)
        }
    }
}

/// Writes the results of these runs into a folder, one file for each. Returns their number.
pub fn write_results(runs: &[RunRecord], dir: &Path) -> Result<usize> {
    for run in runs {
        let name = format!("{}.json", experiment_name(run).replace('/', "--"));
        loram_io::atomic::write_json(dir.join(name), &result(run))?;
    }
    Ok(runs.len())
}
