//! `loram merge`: an adapter into the weights of its base.

use super::{base_name, folder};
use crate::cli::Merge;
use crate::console::{Console, count};
use crate::error::Result;
use loram_io::adapter::{MergeOptions, merge_adapter};
use loram_io::error::human_bytes;
use loram_io::{Adapter, Checkpoint, ModelConfig};
use serde_json::json;

pub fn run(args: &Merge, console: &Console) -> Result<()> {
    let adapter = Adapter::read(folder(&args.adapter, None, console)?)?;
    let name = base_name(args.model.as_deref(), &adapter)?;
    let dir = folder(&name, args.revision.as_deref(), console)?;
    let config = ModelConfig::load(&dir)?;
    let checkpoint = Checkpoint::open(&dir)?;
    if let Some(hint) = adapter.changed_base_hint() {
        console.warn(hint);
    }
    let options = MergeOptions { any_base: args.force };
    let report = merge_adapter(&checkpoint, &config, &adapter, &args.output, options)?;
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
        if report.untied {
            line += "the output layer no longer shares the embedding (tie_word_embeddings: false)\n";
        }
        let next = match adapter.head_outputs() {
            Some(_) => format!("loram eval --model {out} --data …"),
            None => format!("loram generate --model {out} --prompt '…'"),
        };
        line + &format!("\nnext: {next}\n")
    };
    console.result(text, &json)
}
