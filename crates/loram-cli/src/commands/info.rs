//! `loram info`: shows facts about a model or an adapter.

use crate::console::Console;
use crate::error::Result;
use crate::format::{count, memory_parts, numbers, several, shape};
use crate::keys;
use crate::model::{folder, in_4bit};
use crate::table::{Side, facts, table};
use clap::{ArgMatches, Args};
use loram_io::adapter::{ADAPTER_CONFIG, AdapterForm};
use loram_io::error::human_bytes;
use loram_io::inspect::{AdapterFacts, LoraFacts, ModelFacts, ModuleGroup, adapter_facts, lora_facts, model_facts};
use loram_io::{Adapter, Checkpoint, ModelConfig, linear_modules};
use loram_train::TrainConfig;
use loram_train::config::{AdapterFormat, FinetuningType};
use loram_train::dataset::DEFAULT_MAX_LENGTH;
use loram_train::estimate::{MemoryEstimate, estimate};
use serde_json::json;
use std::path::Path;

/// Arguments of `loram info`.
#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Folder or hub id of a model or an adapter, or a GGUF file of a model
    #[arg(value_name = "MODEL_OR_ADAPTER")]
    pub path: String,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// List every linear layer
    #[arg(long)]
    pub layers: bool,
}

pub fn run(args: &InfoArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    let settings = keys::partial(matches)?;
    let dir = folder(&args.path, args.revision.as_deref(), console)?;
    match dir.join(ADAPTER_CONFIG).exists() {
        true => adapter(args, &dir, console),
        false => model(args, &dir, &settings, console),
    }
}

fn model(args: &InfoArgs, dir: &Path, settings: &TrainConfig, console: &Console) -> Result<()> {
    let config = ModelConfig::load(dir)?;
    let checkpoint = in_4bit(Checkpoint::open(dir)?, Some(&config), settings.four_bit().as_ref())?;
    let found = model_facts(&checkpoint, &config)?;
    let lora = match settings.finetuning_type {
        FinetuningType::Full => None,
        FinetuningType::Lora => Some(lora_facts(&checkpoint, &config, &settings.lora_config())?),
    };
    let length = settings.max_length.unwrap_or(config.max_length().min(DEFAULT_MAX_LENGTH));
    let tokens = settings.per_device_train_batch_size.saturating_mul(length);
    let memory = estimate(settings, &checkpoint, &config, tokens)?;
    let linears = linear_modules(&checkpoint, Some(&config))?;
    let layers: Vec<_> =
        linears.iter().map(|l| json!({"path": l.path, "shape": [l.n, l.m], "output_layer": l.output_layer})).collect();
    let json = json!({
        "kind": "model",
        "path": dir.display().to_string(),
        "model": found,
        "layers": layers,
        "lora": lora,
        "memory": memory,
    });
    let text = || {
        let mut text = model_text(&args.path, &found);
        text += "\nlinear layers (target_modules)\n";
        text += &modules(&found.modules);
        if args.layers {
            let rows: Vec<Vec<String>> = linears.iter().map(|l| vec![l.path.clone(), shape(l.n, l.m)]).collect();
            text += "\n";
            text += &table(&[("path", Side::Left), ("shape", Side::Right)], &rows);
        }
        text += "\n";
        text += &training_text(settings, lora.as_ref(), &memory, length);
        text
    };
    console.result(text, &json)
}

fn model_text(name: &str, f: &ModelFacts) -> String {
    let dtypes: Vec<String> = f.dtypes.keys().cloned().collect();
    let files = if f.files == 1 { "1 file".to_string() } else { format!("{} files", f.files) };
    let heads = match f.num_heads == f.num_kv_heads {
        true => format!("{} attention heads", f.num_heads),
        false => format!("{} attention heads, {} KV heads", f.num_heads, f.num_kv_heads),
    };
    let tied = if f.tied { ", output layer tied to the embedding" } else { "" };
    let mut rows = vec![
        ("model", format!("{name} ({}, {})", f.family, f.class)),
        (
            "weights",
            format!("{} parameters, {} in {files}, {}", count(f.parameters), human_bytes(f.bytes), dtypes.join(" + ")),
        ),
        ("shape", format!("{} blocks, {} wide, {heads}{tied}", f.num_layers, f.hidden_size)),
        (
            "tokens",
            format!("{} in the vocabulary, inputs up to {}", count(f.vocab_size as u64), count(f.max_length as u64)),
        ),
    ];
    if !f.labels.is_empty() {
        rows.push(("labels", f.labels.join(", ")));
    }
    rows.push(match &f.tokenizer {
        None => ("tokenizer", "none (no readable tokenizer.json)".into()),
        Some(t) => {
            let special = [("bos", &t.bos), ("eos", &t.eos), ("pad", &t.pad)];
            let special: Vec<String> =
                special.iter().filter_map(|(k, v)| v.as_ref().map(|v| format!("{k} {v}"))).collect();
            let template = if t.chat_template { "chat template" } else { "no chat template" };
            ("tokenizer", format!("{} tokens, {}, {template}", count(t.vocab_size as u64), special.join(", ")))
        }
    });
    facts(&rows)
}

fn modules(groups: &[ModuleGroup]) -> String {
    let rows: Vec<Vec<String>> = groups
        .iter()
        .map(|g| {
            let note = if g.output_layer { "not part of all-linear" } else { "" };
            vec![g.name.clone(), shape(g.shape[0], g.shape[1]), g.count.to_string(), g.example.clone(), note.into()]
        })
        .collect();
    let heading = [
        ("name", Side::Left),
        ("shape", Side::Right),
        ("layers", Side::Right),
        ("first", Side::Left),
        ("", Side::Left),
    ];
    table(&heading, &rows)
}

fn training_text(c: &TrainConfig, lora: Option<&LoraFacts>, m: &MemoryEstimate, length: usize) -> String {
    let doubled = c.adapter_format == AdapterFormat::Plain && c.scheme().is_ok_and(|s| s.info().changes_base);
    let what = match lora {
        None => format!("all {} parameters", count(m.trainable_parameters)),
        Some(l) => format!(
            "{}, r {}, scaling {}: {} layers, {} trainable parameters ({:.2} %), {} on disk",
            c.init_lora_weights.0,
            numbers(&l.ranks),
            numbers(&l.scalings),
            l.layers,
            count(l.trainable_parameters),
            l.percent,
            human_bytes(l.adapter_bytes * if doubled { 2 } else { 1 })
        ),
    };
    facts(&[
        ("training", what),
        (
            "memory",
            format!(
                "about {} with batches of {} × {length} tokens ({})",
                human_bytes(m.total),
                c.per_device_train_batch_size,
                memory_parts(m)
            ),
        ),
    ])
}

fn adapter(args: &InfoArgs, dir: &Path, console: &Console) -> Result<()> {
    let adapter = Adapter::read(dir)?;
    let found = adapter_facts(&adapter)?;
    let layers: Vec<_> =
        adapter.layers.iter().map(|(p, w)| json!({"path": p, "shape": [w.n, w.m], "r": w.r})).collect();
    let json = json!({ "kind": "adapter", "path": dir.display().to_string(), "adapter": found, "layers": layers });
    if let Some(hint) = &found.warning {
        console.warn(hint);
    }
    console.result(|| adapter_text(args, &found, &adapter), &json)
}

fn adapter_text(args: &InfoArgs, f: &AdapterFacts, adapter: &Adapter) -> String {
    let form = match f.form {
        AdapterForm::Plain => "plain: loads onto the untouched base model",
        AdapterForm::Native => "native: needs its recipe (loram.json); convert it with `loram convert`",
    };
    let unknown = || "unknown".to_string();
    let mut rows = vec![
        ("adapter", args.path.clone()),
        ("form", form.to_string()),
        ("scheme", f.scheme.clone().unwrap_or_else(unknown)),
        ("base", f.base_model.clone().unwrap_or_else(unknown)),
        ("task", f.task_type.clone().unwrap_or_else(unknown)),
        ("rank", format!("{}, scaling {}", numbers(&f.ranks), numbers(&f.scalings))),
        ("size", format!("{}, {} parameters, {}", several(f.layers as u64, "layer"), count(f.parameters), f.dtype)),
    ];
    if !f.tokens.is_empty() {
        let rows_of = |(path, n): (&String, &usize)| format!("{n} of {path}");
        rows.push(("trained rows", f.tokens.iter().map(rows_of).collect::<Vec<_>>().join(", ")));
    }
    if !f.saved.is_empty() {
        rows.push(("fully trained", f.saved.join(", ")));
    }
    let mut text = facts(&rows) + "\n" + &modules(&f.modules);
    if args.layers {
        let rows: Vec<Vec<String>> =
            adapter.layers.iter().map(|(p, w)| vec![p.clone(), shape(w.n, w.m), w.r.to_string()]).collect();
        text += "\n";
        text += &table(&[("path", Side::Left), ("shape", Side::Right), ("r", Side::Right)], &rows);
    }
    text
}
