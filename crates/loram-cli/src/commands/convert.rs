//! `loram convert`: converts adapters between forms and to smaller ranks.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::{count, numbers};
use crate::model::{folder, in_4bit, open};
use crate::table::{Side, table};
use clap::{Args, ValueEnum};
use loram_io::adapter::{Adapter, AdapterForm, BaseWeights};
use loram_io::atomic::Output;
use loram_io::gguf::{is_gguf, read_lora};
use loram_io::inspect::adapter_facts;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `loram convert`.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// Adapter folder or hub id, or a GGUF file of an adapter (with --model)
    #[arg(value_name = "ADAPTER")]
    pub adapter: String,
    /// Output folder
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an adapter that is in the output folder
    #[arg(long)]
    pub overwrite: bool,
    /// Form of the result
    #[arg(long, value_name = "FORM", default_value = "plain")]
    pub to: Form,
    /// Fold each layer's scaling into B (lora_alpha = r, no patterns, no rsLoRA), for programs that support a single
    /// scaling, such as llama.cpp
    #[arg(long)]
    pub fold_scaling: bool,
    /// Truncate every layer to this rank by SVD and print the error
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Base model, needed for schemes that read its weights and for GGUF adapters
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub model: Option<String>,
}

/// Form of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Loads onto the untouched base model in any PEFT program; rank up to 2r
    Plain,
    /// Rank r, with the recipe of its initialisation
    Native,
}

/// The adapter in a folder, or in a GGUF file, whose names are those of its base model's.
fn read(args: &ConvertArgs, console: &Console) -> Result<Adapter> {
    let from = folder(&args.adapter, None, console)?;
    if !is_gguf(&from) {
        return Ok(Adapter::read(from)?);
    }
    let Some(name) = &args.model else {
        let what = format!("{}: a GGUF adapter does not name its base model: give it with --model", args.adapter);
        return Err(Error::Usage(what));
    };
    let (config, checkpoint) = open(name, None, console)?;
    Ok(Adapter { base_model: Some(name.clone()), ..read_lora(&from, &checkpoint, &config)? })
}

pub fn run(args: &ConvertArgs, console: &Console) -> Result<()> {
    let output = Output::new(&args.output, args.overwrite);
    output.check()?;
    let adapter = read(args, console)?;
    let native = adapter.form() == AdapterForm::Native;
    if args.to == Form::Native && (args.rank.is_some() || args.fold_scaling) {
        return Err(Error::Usage("--rank and --fold-scaling write plain adapters: remove --to native".into()));
    }
    let base = match (&args.model, &adapter.base_model) {
        (Some(name), _) => Some(name.clone()),
        // the base model is read only for schemes that need it
        (None, Some(name)) if !adapter.init_follows_from_recipe() => Some(name.clone()),
        _ => None,
    };
    let opened = base.map(|name| {
        let (config, checkpoint) = open(&name, adapter.revision.as_deref(), console)?;
        let checkpoint = in_4bit(checkpoint, Some(&config), adapter.loaded_in_4bit())?;
        Ok::<_, Error>((config, checkpoint))
    });
    let opened = opened.transpose()?;
    let weights = match &opened {
        Some((config, checkpoint)) => Some(BaseWeights::new(checkpoint, config)?),
        None => None,
    };
    let weight = |path: &str| match &weights {
        Some(w) => w.of(path),
        None => {
            Err(loram_io::Error::Usage(format!("the base model is needed for layer `{path}`: give it with --model")))
        }
    };
    let mut out = match args.to {
        Form::Plain => adapter.to_plain(weight)?,
        Form::Native => adapter.to_native(weight)?,
    };
    let mut truncation = None;
    if let Some(rank) = args.rank {
        let (smaller, report) = out.truncated(rank)?;
        out = smaller;
        truncation = Some(report);
    }
    if args.fold_scaling {
        out = out.folded()?;
    }
    out.write_to(output)?;
    let (before, after) = (adapter_facts(&adapter)?, adapter_facts(&out)?);
    let json = json!({
        "output": args.output.display().to_string(),
        "from": before.form,
        "to": after.form,
        "ranks": after.ranks,
        "parameters": after.parameters,
        "truncation": truncation,
    });
    let last_line = || {
        let form = if native { "native" } else { "plain" };
        let now = if after.form == AdapterForm::Native { "native" } else { "plain" };
        format!(
            "{}: {form} → {now}, rank {}, {} parameters\n",
            args.output.display(),
            numbers(&after.ranks),
            count(after.parameters)
        )
    };
    let text = || {
        let mut text = String::new();
        if let Some(t) = &truncation {
            let rows: Vec<Vec<String>> = t
                .layers
                .iter()
                .map(|l| vec![l.path.clone(), format!("{} → {}", l.from, l.to), format!("{:.2e}", l.error)])
                .collect();
            if rows.is_empty() {
                let rank = args.rank.unwrap_or_default();
                return format!("no layer has a rank above {rank}: nothing was truncated\n") + &last_line();
            }
            let heading = [("layer", Side::Left), ("rank", Side::Right), ("relative error", Side::Right)];
            text += &table(&heading, &rows);
            text += &format!("\nerror over all layers: {:.3e} of ‖ΔW‖\n", t.error);
        }
        text + &last_line()
    };
    console.result(text, &json)
}
