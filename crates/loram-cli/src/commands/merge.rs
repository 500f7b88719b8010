//! `loram merge`: merges an adapter into the weights of its base model.

use crate::console::Console;
use crate::error::Result;
use crate::format::count;
use crate::model::{folder, open_base};
use crate::program::as_called;
use clap::Args;
use loram_io::Adapter;
use loram_io::adapter::{MergeOptions, merge_adapter};
use loram_io::atomic::Output;
use loram_io::error::human_bytes;
use loram_train::shell::quoted;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `loram merge`.
#[derive(Debug, Args)]
pub struct MergeArgs {
    /// Model folder, GGUF file or hub id [default: the base model that the adapter names]
    #[arg(long, value_name = "DIR|HUB_ID", alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Adapter folder or hub id
    #[arg(long, value_name = "DIR|HUB_ID", alias = "adapter-name-or-path")]
    pub adapter: String,
    /// Output folder for the merged model
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Replace a model that is in the output folder
    #[arg(long)]
    pub overwrite: bool,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Merge even if the adapter was initialised on another model
    #[arg(long)]
    pub force: bool,
    /// Merge into the weights as they are stored, not into the 4-bit ones that the adapter was trained on (load_in_4bit)
    #[arg(long)]
    pub unquantised: bool,
}

pub fn run(args: &MergeArgs, console: &Console) -> Result<()> {
    let output = Output::new(&args.output, args.overwrite);
    output.check()?;
    let adapter = Adapter::read(folder(&args.adapter, None, console)?)?;
    let (name, config, checkpoint) =
        open_base(args.model.as_deref(), &adapter, args.revision.as_deref(), args.unquantised, console)?;
    if let Some(hint) = adapter.changed_base_hint() {
        console.warn(hint);
    }
    let decoded = checkpoint.loaded_in_4bit().is_some();
    let other = args.unquantised && adapter.loaded_in_4bit().is_some();
    let options = MergeOptions { any_base: args.force || other };
    let report = merge_adapter(&checkpoint, &config, &adapter, output, options)?;
    let out = args.output.display().to_string();
    let json = json!({
        "output": out,
        "model": name,
        "adapter": args.adapter,
        "changed": report.changed,
        "copied": report.copied,
        "added": report.added,
        "bytes": report.bytes,
        "untied": report.untied,
    });
    let text = || {
        let mut line = format!(
            "{out}: {} tensors merged, {} copied, {}\n",
            count(report.changed as u64),
            count(report.copied as u64),
            human_bytes(report.bytes)
        );
        if !report.added.is_empty() {
            line += &format!("added: {}\n", report.added.join(", "));
        }
        if decoded {
            line += "merged into the 4-bit weights that the adapter was trained on, decoded to BF16; --unquantised merges into \
                     the stored ones\n";
        }
        if report.untied {
            line += "the output layer no longer shares the embedding (tie_word_embeddings: false)\n";
        }
        let head = adapter.with_pooling(&config).ok().and_then(|config| adapter.head(&config));
        let next = match head {
            Some(_) => format!("loram info {}", quoted(&out)),
            None => format!("loram generate --model {} --prompt Hello", quoted(&out)),
        };
        line + &format!("\nnext: {}\n", as_called(&next))
    };
    console.result(text, &json)
}
