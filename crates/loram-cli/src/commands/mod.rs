//! One file per verb.

mod compare;
mod convert;
mod docs;
mod eval;
mod generate;
mod info;
mod init;
mod merge;
mod plan;
mod report;
mod schemes;
mod train;
mod verify;

use crate::cli::{self, Cli, Verb};
use crate::console::Console;
use crate::error::Result;
use crate::progress::Show;
use clap::ArgMatches;
use loram_io::Adapter;
use loram_io::error::human_bytes;
use loram_train::MemoryEstimate;
use std::path::PathBuf;

pub use compare::shard;

/// Runs a verb; gives the exit code.
pub fn run(cli: Cli, matches: &ArgMatches, console: &Console) -> Result<i32> {
    let own = matches.subcommand().map_or(matches, |s| s.1);
    match cli.command {
        Verb::Train(args) => return train::run(&args, own, console),
        Verb::Init(args) => init::run(&args, own, console),
        Verb::Plan(args) => plan::run(&args, own, console),
        Verb::Eval(args) => eval::run(&args, own, console),
        Verb::Generate(args) => generate::run(&args, own, console),
        Verb::Merge(args) => merge::run(&args, console),
        Verb::Convert(args) => convert::run(&args, console),
        Verb::Compare(args) => return compare::run(&args, cli.common.threads, console),
        Verb::Report(args) => report::run(&args, console),
        Verb::Info(args) => info::run(&args, own, console),
        Verb::Verify(args) => return verify::run(&args, console),
        Verb::Schemes => schemes::run(console),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut cli::command(), "loram", &mut std::io::stdout());
            Ok(())
        }
        Verb::Docs { page } => docs::run(page, console),
    }?;
    Ok(0)
}

/// A local folder, or a hub id downloaded with progress.
fn folder(name: &str, revision: Option<&str>, console: &Console) -> Result<PathBuf> {
    Ok(loram_train::resolve(name, revision, &mut Show::new(console))?)
}

/// What an estimate is made of, in words.
fn memory_parts(m: &MemoryEstimate) -> String {
    let parts = [
        ("weights", m.weights),
        ("trained", m.trained),
        ("optimiser", m.optimizer),
        ("activations", m.activations),
        ("logits", m.logits),
        ("program", m.program),
    ];
    parts.iter().map(|(n, b)| format!("{n} {}", human_bytes(*b))).collect::<Vec<_>>().join(", ")
}

/// The base that the user or the adapter names.
fn base_name(given: Option<&str>, adapter: &Adapter) -> Result<String> {
    let named = given.map(str::to_string).or_else(|| adapter.base_model.clone());
    named.ok_or_else(|| crate::Error::Usage("the adapter does not name its base model: give it with --model".into()))
}
