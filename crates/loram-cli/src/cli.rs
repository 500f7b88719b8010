//! The command line: commands, options of all commands, and the run of a command.

use crate::commands::compare::CompareArgs;
use crate::commands::convert::ConvertArgs;
use crate::commands::docs::DocsPage;
use crate::commands::eval::EvalArgs;
use crate::commands::export::ExportArgs;
use crate::commands::generate::GenerateArgs;
use crate::commands::info::InfoArgs;
use crate::commands::init::InitArgs;
use crate::commands::init_config::InitConfigArgs;
use crate::commands::man::ManArgs;
use crate::commands::merge::MergeArgs;
use crate::commands::plan::PlanArgs;
use crate::commands::predict::PredictArgs;
use crate::commands::report::ReportArgs;
use crate::commands::serve::ServeArgs;
use crate::commands::train::TrainArgs;
use crate::commands::verify::VerifyArgs;
use crate::commands::{
    compare, convert, docs, doctor, eval, export, generate, info, init, init_config, man, merge, plan, predict, report,
    schemes, serve, train, verify,
};
use crate::console::Console;
use crate::error::Result;
use crate::keys::{with_flags, with_keys};
use clap::{ArgMatches, Args, Command, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use loram_train::config::Mark;
use serde_json::json;

/// Initialise, train, compare, merge and convert LoRA adapters for Hugging Face models, with LoRAM and other schemes.
#[derive(Debug, Parser)]
#[command(name = "loram", version, arg_required_else_help = true, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 success, 1 failure while running, 2 wrong usage or input, 129, 130 and 143\nstopped by a signal (SIGHUP, SIGINT, SIGTERM), 141 by a closed pipe."
)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Verb,
    #[command(flatten)]
    pub common: Common,
}

/// Options of all commands.
#[derive(Debug, Args)]
pub struct Common {
    /// Print one JSON object to standard output and nothing else
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Print only results and errors
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Print more; repeat for debug messages (RUST_LOG takes precedence)
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Number of threads [default: all cores]
    #[arg(long, global = true, value_name = "N", help_heading = "Output")]
    pub threads: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train an adapter, or all weights, from a configuration file, flags, or both
    Train(TrainArgs),
    /// Write a configuration file with comments, from flags or from answers on a terminal
    InitConfig(InitConfigArgs),
    /// Initialise an adapter without training: factors, recipe and, on request, the residual checkpoint
    Init(InitArgs),
    /// Predict how far training moves the weights, find equivalent learning rates, and rewrite a configuration into an
    /// equivalent one
    Plan(PlanArgs),
    /// Evaluate a model, with or without an adapter, on data files
    Eval(EvalArgs),
    /// Answer the records of data files: labels with probabilities, numbers, or generated texts
    Predict(PredictArgs),
    /// Continue a text, or chat
    Generate(GenerateArgs),
    /// Serve a model and its adapters over HTTP, with OpenAI's interface and a page to chat on
    Serve(ServeArgs),
    /// Merge an adapter into the weights of its base model
    Merge(MergeArgs),
    /// Convert an adapter to its plain form, which any PEFT program loads, or to a smaller rank
    Convert(ConvertArgs),
    /// Write an adapter, or the merged model, as a GGUF file for llama.cpp, Ollama and LM Studio, or an adapter for diffusers
    Export(ExportArgs),
    /// Train a grid of runs over schemes, learning rates, ranks, seeds, models and tasks; resume it at any time
    Compare(CompareArgs),
    /// Write tables, plots and conclusions from run folders, as HTML, Markdown, CSV or JSON
    Report(ReportArgs),
    /// Show facts about a model or an adapter: shapes, module names, trainable parameters, memory
    Info(InfoArgs),
    /// Check an adapter against its recipe and its base model
    Verify(VerifyArgs),
    /// List initialisation schemes
    Schemes,
    /// Show what the program finds on this machine: instructions, speed, memory, GPU, caches
    Doctor,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print manual pages, or write them to a folder
    Man(ManArgs),
    /// Print a generated page of the documentation
    #[command(hide = true)]
    Docs {
        /// The page
        page: DocsPage,
    },
}

/// The command line, with a flag for each key of the key table.
pub fn command() -> Command {
    let train_help = "Every key of a configuration file is also a flag (`--help` lists them), and `--set key=value` sets any key.\n\
                      Flags override --set, --set overrides the file, the file overrides defaults.";
    Cli::command().mut_subcommands(|c| match c.get_name() {
        "train" => with_keys(c, |_| true).after_help(train_help),
        "init-config" => with_keys(c, |_| true),
        "init" => with_keys(c, |k| k.is(Mark::Init)),
        "plan" => with_keys(c, |k| k.is(Mark::Plan)),
        "info" => with_keys(c, |k| k.is(Mark::Info)),
        "eval" => with_keys(c, |k| k.is(Mark::Eval)),
        "predict" => with_flags(c, |k| k.is(Mark::Predict)),
        "generate" | "serve" => with_flags(c, |k| k.is(Mark::Generate)),
        _ => c,
    })
}

impl Cli {
    /// Runs the command and returns the exit code. `matches` are the parsed arguments, with the flags of keys.
    pub fn run(self, matches: &ArgMatches, console: &Console) -> Result<i32> {
        let own = matches.subcommand().map_or(matches, |s| s.1);
        match self.command {
            Verb::Train(args) => return train::run(&args, own, console),
            Verb::InitConfig(args) => init_config::run(&args, own, console),
            Verb::Init(args) => init::run(&args, own, console),
            Verb::Plan(args) => plan::run(&args, own, console),
            Verb::Eval(args) => eval::run(&args, own, console),
            Verb::Predict(args) => predict::run(&args, own, console),
            Verb::Generate(args) => generate::run(&args, own, console),
            Verb::Serve(args) => serve::run(&args, own, console),
            Verb::Merge(args) => merge::run(&args, console),
            Verb::Convert(args) => convert::run(&args, console),
            Verb::Export(args) => export::run(&args, console),
            Verb::Compare(args) => return compare::run(&args, self.common.threads, console),
            Verb::Report(args) => return report::run(&args, console),
            Verb::Info(args) => info::run(&args, own, console),
            Verb::Verify(args) => return verify::run(&args, console),
            Verb::Schemes => schemes::run(console),
            Verb::Doctor => doctor::run(console),
            Verb::Completions { shell } => completions(shell, console),
            Verb::Man(args) => man::run(&args, command(), console),
            Verb::Docs { page } => docs::run(page, command(), console),
        }?;
        Ok(0)
    }
}

fn completions(shell: Shell, console: &Console) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "loram", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    console.result(|| script.clone(), &json!({"shell": shell.to_string(), "script": script}))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
