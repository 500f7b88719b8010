//! The program `loram`: arguments, configuration layers, progress and messages. Everything it does is in the library
//! crates.

mod cli;
mod commands;
mod console;
mod error;
mod keys;
mod progress;
mod signals;
mod table;

use clap::FromArgMatches;
use console::Console;
use error::{Error, Result};

// keeps freed pages: giving them back and clearing them again cost a sixth of a training step
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    signals::end_on_closed_pipe();
    let matches = cli::command().get_matches_from(keys::normalise(std::env::args_os()));
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let console = Console::new(&cli.common);
    console.start_logging();
    let done = threads(cli.common.threads).and_then(|()| commands::run(cli, &matches, &console));
    let code = match done {
        Ok(code) => code,
        Err(e) => {
            console.error(&e);
            e.exit_code()
        }
    };
    std::process::exit(code);
}

/// Size of the pool in which everything computes.
fn threads(n: Option<usize>) -> Result<()> {
    if n == Some(0) {
        return Err(Error::Usage("--threads: expected at least 1, found 0".into()));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(n.unwrap_or(0))
        .build_global()
        .map_err(|e| Error::Failed(format!("cannot start threads: {e}")))
}
