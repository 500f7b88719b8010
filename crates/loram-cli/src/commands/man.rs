//! `loram man`: manual pages from the help texts.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::format::several;
use crate::table::facts;
use clap::{Args, Command};
use clap_mangen::Man;
use loram_io::atomic::{AtomicDir, Output, write_bytes};
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `loram man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Output folder, such as ~/.local/share/man/man1: a page for each command [default: print that of loram]
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// `command` is the whole command line.
pub fn run(args: &ManArgs, command: Command, console: &Console) -> Result<()> {
    let mut command = command;
    command.build();
    let Some(dir) = &args.output else {
        let page = page(command)?;
        return console.result(|| page.clone(), &json!({ "page": page }));
    };
    let name = command.get_name().to_string();
    let shown = command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help");
    let mut pages = vec![(format!("{name}.1"), page(command.clone())?)];
    for sub in shown.cloned() {
        pages.push((format!("{name}-{}.1", sub.get_name()), page(sub)?));
    }
    // other pages of the folder stay
    let room = AtomicDir::create(Output::new(dir, true))?;
    for (file, text) in &pages {
        write_bytes(room.path().join(file), text.as_bytes())?;
    }
    room.commit_keeping(|_| true)?;
    let written: Vec<String> = pages.iter().map(|(file, _)| dir.join(file).display().to_string()).collect();
    let text = || facts(&[("written", format!("{} in {}", several(written.len() as u64, "page"), dir.display()))]);
    console.result(text, &json!({ "written": written }))
}

fn page(command: Command) -> Result<String> {
    let mut text = Vec::new();
    Man::new(command).render(&mut text).map_err(|e| Error::Failed(format!("cannot make the manual page: {e}")))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
