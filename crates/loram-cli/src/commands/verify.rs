//! `loram verify`: checks an adapter against its manifest, its recipe and its base model.

use crate::console::Console;
use crate::error::Result;
use crate::model::{folder, open_known};
use crate::table::{Side, table};
use clap::Args;
use loram_io::verify::{Outcome, verify_folder};

/// Arguments of `loram verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Adapter folder, checkpoint of a run, or hub id
    #[arg(value_name = "ADAPTER")]
    pub adapter: String,
    /// Base model to compare with
    #[arg(long, value_name = "DIR|HUB_ID", alias = "model")]
    pub base: Option<String>,
}

/// Returns the exit code: 1 if a check fails.
pub fn run(args: &VerifyArgs, console: &Console) -> Result<i32> {
    let dir = folder(&args.adapter, None, console)?;
    let base = args.base.as_ref().map(|name| open_known(name, None, console)).transpose()?;
    let done = verify_folder(&dir, base.as_ref().map(|(config, checkpoint)| (checkpoint, config.as_ref())))?;
    let text = || {
        let word = |o| match o {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "–",
        };
        let rows: Vec<Vec<String>> =
            done.checks.iter().map(|c| vec![c.name.into(), word(c.outcome).into(), c.detail.clone()]).collect();
        table(&[("check", Side::Left), ("", Side::Left), ("", Side::Left)], &rows)
    };
    console.result(text, &done)?;
    Ok(if done.passed { 0 } else { 1 })
}
