//! `loram verify`: an adapter against its recipe and its base.

use super::folder;
use crate::cli::Verify;
use crate::console::Console;
use crate::error::Result;
use crate::table::{Side, table};
use loram_io::verify::{Outcome, verify};
use loram_io::{Adapter, Checkpoint, ModelConfig};

/// Exit code 1 when a check fails.
pub fn run(args: &Verify, console: &Console) -> Result<i32> {
    let adapter = Adapter::read(folder(&args.adapter, None, console)?)?;
    let base = match &args.base {
        None => None,
        Some(name) => {
            let dir = folder(name, None, console)?;
            Some((ModelConfig::load_known(&dir)?, Checkpoint::open(&dir)?))
        }
    };
    let done = verify(&adapter, base.as_ref().map(|(config, checkpoint)| (checkpoint, config.as_ref())))?;
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
