//! `loram export`: writes an adapter, or the merged model, as a GGUF file for llama.cpp, Ollama and LM Studio; or an adapter for diffusers.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::count;
use crate::model::{folder, open_base};
use clap::{Args, ValueEnum};
use loram_io::adapter::{Adapter, BaseWeights, DIFFUSERS_WEIGHTS, MergeOptions, write_diffusers};
use loram_io::atomic::{AtomicDir, Output, write_bytes};
use loram_io::error::human_bytes;
use loram_io::gguf::{write_lora, write_merged_gguf};
use loram_io::{Checkpoint, DType};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments of `loram export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Adapter folder or hub id
    #[arg(value_name = "ADAPTER")]
    pub adapter: String,
    /// Output folder: `adapter.gguf` or `model.gguf` and a Modelfile for Ollama, or `pytorch_lora_weights.safetensors`
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace an export that is in the output folder
    #[arg(long)]
    pub overwrite: bool,
    /// Model folder, GGUF file or hub id [default: the base model that the adapter names]
    #[arg(long, value_name = "DIR|FILE|HUB_ID", alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Layout of the file
    #[arg(long, value_name = "FORMAT", default_value = "gguf")]
    pub format: Format,
    /// Component of the pipeline that the adapter is for (--format diffusers) [default: unet for a UNet, else transformer]
    #[arg(long, value_name = "NAME")]
    pub component: Option<String>,
    /// Write the model with the adapter merged into it; the base must be a GGUF file
    #[arg(long)]
    pub merged: bool,
    /// Type of the factors, or with --merged of the weights that change
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub outtype: OutType,
    /// Export even if the adapter was initialised on another model
    #[arg(long)]
    pub force: bool,
}

/// Layout of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For llama.cpp, Ollama and LM Studio: a GGUF file and a Modelfile
    Gguf,
    /// For pipelines of diffusers, such as FLUX: pytorch_lora_weights.safetensors
    Diffusers,
}

/// Type of tensors in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum OutType {
    /// 32 bits
    F32,
    /// 16 bits
    F16,
    /// 16 bits with the range of 32 (--merged only)
    Bf16,
    /// 8 bits in blocks of 32
    #[value(name = "q8_0")]
    Q8_0,
    /// 5 bits in blocks of 32 with a smallest value (--merged only)
    #[value(name = "q5_1")]
    Q5_1,
    /// 5 bits in blocks of 32 (--merged only)
    #[value(name = "q5_0")]
    Q5_0,
    /// 4 bits in blocks of 32 with a smallest value (--merged only)
    #[value(name = "q4_1")]
    Q4_1,
    /// 4 bits in blocks of 32 (--merged only)
    #[value(name = "q4_0")]
    Q4_0,
}

impl OutType {
    fn dtype(self) -> DType {
        match self {
            OutType::F32 => DType::F32,
            OutType::F16 => DType::F16,
            OutType::Bf16 => DType::BF16,
            OutType::Q8_0 => DType::Q8_0,
            OutType::Q5_1 => DType::Q5_1,
            OutType::Q5_0 => DType::Q5_0,
            OutType::Q4_1 => DType::Q4_1,
            OutType::Q4_0 => DType::Q4_0,
        }
    }
}

const MODELFILE: &str = "Modelfile";

pub fn run(args: &ExportArgs, console: &Console) -> Result<()> {
    if args.format == Format::Diffusers {
        return for_diffusers(args, console);
    }
    let output = Output::new(&args.output, args.overwrite);
    output.check_folder("an export", MODELFILE)?;
    let adapter = Adapter::read(folder(&args.adapter, None, console)?)?;
    let (name, config, checkpoint) =
        open_base(args.model.as_deref(), &adapter, args.revision.as_deref(), false, console)?;
    if let Some(hint) = adapter.changed_base_hint() {
        console.warn(hint);
    }
    let options = MergeOptions { any_base: args.force };
    let dir = AtomicDir::create(output)?;
    let (file, text) = match args.merged {
        true => {
            let path = dir.path().join("model.gguf");
            let done = write_merged_gguf(&checkpoint, &config, &adapter, args.outtype.dtype(), &path, options)?;
            let (changed, copied) = (count(done.changed as u64), count(done.copied as u64));
            ("model.gguf", format!("{changed} tensors merged, {copied} copied, {}", human_bytes(done.bytes)))
        }
        false => {
            let weights = BaseWeights::new(&checkpoint, &config)?;
            let plain = adapter.checked_for(&checkpoint, &config, options)?.to_plain(|path| weights.of(path))?;
            write_lora(&plain, &checkpoint, &config, args.outtype.dtype(), &dir.path().join("adapter.gguf"))?;
            ("adapter.gguf", format!("{} layers", count(plain.layers.len() as u64)))
        }
    };
    write_bytes(dir.path().join(MODELFILE), modelfile(args.merged, &checkpoint)?.as_bytes())?;
    dir.commit()?;
    let out = args.output.join(file).display().to_string();
    let json = json!({ "output": out, "modelfile": args.output.join(MODELFILE).display().to_string(), "model": name });
    let next = format!("ollama create NAME -f {}", args.output.join(MODELFILE).display());
    console.result(|| format!("{out}: {text}\n\nnext: {next}\n"), &json)
}

/// Writes the file that `load_lora_weights` of a diffusers pipeline reads.
fn for_diffusers(args: &ExportArgs, console: &Console) -> Result<()> {
    if args.merged {
        return Err(Error::Usage("--merged writes a GGUF file: remove --format diffusers".into()));
    }
    let output = Output::new(&args.output, args.overwrite);
    output.check_folder("an export for diffusers", DIFFUSERS_WEIGHTS)?;
    let adapter = Adapter::read(folder(&args.adapter, None, console)?)?;
    let plain = adapter.to_plain(|path| {
        let what = "the scheme of this adapter reads the base model: make it plain first (loram convert --model)";
        Err(loram_io::Error::Usage(format!("layer `{path}`: {what}")))
    })?;
    let base = args.model.clone().or_else(|| adapter.base_model.clone());
    let component = args.component.clone().unwrap_or_else(|| component_of(base.as_deref()).into());
    let dir = AtomicDir::create(output)?;
    write_diffusers(&plain, &component, args.outtype.dtype(), &dir.path().join(DIFFUSERS_WEIGHTS))?;
    dir.commit()?;
    let out = args.output.join(DIFFUSERS_WEIGHTS).display().to_string();
    let layers = count(plain.layers.len() as u64);
    let json = json!({ "output": out, "component": component, "layers": plain.layers.len(), "model": base });
    let next = format!("pipeline.load_lora_weights({:?})", args.output.display().to_string());
    console.result(|| format!("{out}: {layers} layers of the component `{component}`\n\nnext: {next}\n"), &json)
}

/// The component whose class the configuration of a model names.
fn component_of(model: Option<&str>) -> &'static str {
    let config = model.and_then(|dir| std::fs::read_to_string(Path::new(dir).join("config.json")).ok());
    match config.is_some_and(|text| text.contains("UNet")) {
        true => "unet",
        false => "transformer",
    }
}

/// The Modelfile from which `ollama create` makes a model.
fn modelfile(merged: bool, base: &Checkpoint) -> Result<String> {
    if merged {
        return Ok("FROM ./model.gguf\n".into());
    }
    if base.is_gguf() {
        let path = base.root().canonicalize().map_err(|e| Error::Io(loram_io::Error::io("read", base.root(), e)))?;
        return Ok(format!("FROM {}\nADAPTER ./adapter.gguf\n", path.display()));
    }
    Ok(format!(
        "# the GGUF file of {}, as convert_hf_to_gguf.py of llama.cpp makes it\nFROM ./base.gguf\nADAPTER ./adapter.gguf\n",
        base.root().display()
    ))
}
