//! `loram verify`: checks an adapter against its manifest, its recipe and its base model.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::model::{folder, in_4bit, open_known};
use crate::table::{Side, table};
use clap::Args;
use loram_io::Adapter;
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
    // what is wrong with the adapter is for the checks to say
    let adapter = Adapter::read(&dir).ok();
    let four_bit = adapter.as_ref().and_then(Adapter::loaded_in_4bit);
    let open = |name: &String| {
        let (config, checkpoint) = open_known(name, None, console)?;
        let checkpoint = in_4bit(checkpoint, config.as_ref(), four_bit)?;
        Ok::<_, Error>((config, checkpoint))
    };
    let base = args.base.as_ref().map(open).transpose()?;
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
