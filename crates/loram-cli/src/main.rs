//! The program `loram`: arguments, configuration layers, progress and messages. The work is done by the library crates.

mod allocator;
mod cli;
mod commands;
mod console;
mod error;
mod format;
mod keys;
mod ladder;
mod model;
mod program;
mod progress;
mod ranks;
mod sampling;
mod signals;
mod table;

use clap::FromArgMatches;
use console::Console;
use error::{Error, Result};

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() {
    signals::end_on_closed_pipe();
    // without the handler a model file that is cut short ends the program without a word
    let _ = loram_io::checkpoint::report_lost_files();
    let matches = cli::command().get_matches_from(keys::normalise(std::env::args_os()));
    let cli = match cli::Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(e) => e.exit(),
    };
    let console = Console::new(cli.common.json, cli.common.quiet, cli.common.verbose);
    console.start_logging();
    let started = threads(cli.common.threads).and_then(|()| ranks::check_command(&matches));
    let done = started.and_then(|()| cli.run(&matches, &console));
    let code = match done {
        Ok(code) => code,
        Err(e) => {
            if !ranks::is_told_elsewhere(&e) {
                console.error(&e);
            }
            e.exit_code()
        }
    };
    std::process::exit(code);
}

/// Sets the size of the thread pool that all computation uses.
fn threads(n: Option<usize>) -> Result<()> {
    if n == Some(0) {
        return Err(Error::Usage("--threads: expected at least 1, found 0".into()));
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(n.unwrap_or_else(ranks::threads))
        .build_global()
        .map_err(|e| Error::Failed(format!("cannot start threads: {e}")))
}
