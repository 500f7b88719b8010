//! The arguments of every verb.

use crate::keys::{with_flags, with_keys};
use clap::builder::TypedValueParser;
use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use loram_core::growth::Knob;
use loram_lab::Shard;
use loram_train::config::Mark;
use std::path::PathBuf;

/// Starts, trains, merges and converts LoRA adapters for Hugging Face models, with LoRAM and other starts.
#[derive(Debug, Parser)]
#[command(name = "loram", version, arg_required_else_help = true, propagate_version = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 and 143 stopped by a signal."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Verb,
    #[command(flatten)]
    pub common: Common,
}

/// Arguments of every verb.
#[derive(Debug, Args)]
pub struct Common {
    /// Write one JSON object to standard output, and nothing else there
    #[arg(long, global = true, help_heading = "Output")]
    pub json: bool,
    /// Only results and errors
    #[arg(long, short, global = true, help_heading = "Output")]
    pub quiet: bool,
    /// Say more; twice for debugging (RUST_LOG refines it)
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
    /// Threads to compute with; all cores by default
    #[arg(long, global = true, value_name = "N", help_heading = "Output")]
    pub threads: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Train an adapter (or every weight) from a configuration file, flags, or both
    Train(Train),
    /// Start adapters for a checkpoint without training: factors, recipe, and the residual base if wanted
    Init(Init),
    /// How far training is going to move the weights: per layer and scheme, which learning rates are equal, and a
    /// configuration rewritten into an equal one
    Plan(Plan),
    /// Loss and metrics of a model, with or without an adapter, on a data file
    Eval(Eval),
    /// Continue a text, or chat
    Generate(Generate),
    /// Write a model with an adapter merged into its weights
    Merge(Merge),
    /// Turn an adapter into its plain form, which loads everywhere, or to a smaller rank
    Convert(Convert),
    /// Train a grid of runs: schemes, learning rates, ranks, seeds, models, tasks; to be gone on with at any time
    Compare(Compare),
    /// Tables, plots and conclusions from run folders, as one HTML page or as Markdown, CSV or JSON
    Report(Report),
    /// What a model or an adapter is: shapes, module names, trainable parameters, memory
    Info(Info),
    /// Check an adapter against its recipe, and against its base model
    Verify(Verify),
    /// The starts that there are
    Schemes,
    /// Completions for a shell, to be sourced
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Pages of the documentation that are made from tables in the code
    #[command(hide = true)]
    Docs {
        /// The page
        page: Page,
    },
}

/// A generated page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Page {
    /// `docs/configuration.md`
    Configuration,
    /// `docs/schemes.md`
    Schemes,
    /// `docs/commands.md`
    Commands,
}

#[derive(Debug, Args)]
pub struct Train {
    /// Configuration file; flags and --set override it
    #[arg(value_name = "CONFIG.yaml")]
    pub config: Option<PathBuf>,
    /// Show the resolved configuration, the memory estimate and a rendered example, and stop
    #[arg(long)]
    pub dry_run: bool,
    /// List every key with its default and meaning, and stop
    #[arg(long)]
    pub help_keys: bool,
}

/// A model, and maybe an adapter for it.
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("source").required(true).multiple(true))]
pub struct Source {
    /// Model folder or hub id; by default the base that the adapter names
    #[arg(long, group = "source", value_name = "DIR|HUB_ID", visible_alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Adapter folder or hub id
    #[arg(long, group = "source", value_name = "DIR|HUB_ID", alias = "adapter-name-or-path")]
    pub adapter: Option<String>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
}

#[derive(Debug, Args)]
pub struct Init {
    /// Model folder or hub id; of any architecture, as long as it has safetensors
    #[arg(value_name = "MODEL", required_unless_present_any = ["from_recipe", "base_model"])]
    pub model: Option<String>,
    /// The same, as a flag
    #[arg(
        id = "base_model",
        long = "model",
        value_name = "DIR|HUB_ID",
        alias = "model-name-or-path",
        conflicts_with = "model"
    )]
    pub base: Option<String>,
    /// Folder for the adapter
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Also write the residual checkpoint W − s·B₀A₀ here; the adapter is then a plain one for that base
    #[arg(long, value_name = "DIR")]
    pub residual: Option<PathBuf>,
    /// Type of the changed weights in the residual checkpoint: that of the model, or float32
    #[arg(long, value_name = "TYPE", default_value = "model", requires = "residual")]
    pub residual_dtype: ResidualType,
    /// Make a start again, bit for bit, from a loram.json or from an adapter folder that holds one. Only starts that are
    /// made from the weights need the model
    #[arg(long, value_name = "FILE|DIR", conflicts_with = "residual")]
    pub from_recipe: Option<PathBuf>,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
}

#[derive(Debug, Args)]
pub struct Plan {
    /// Model folder or hub id, or a configuration file (which names its model)
    #[arg(value_name = "MODEL|CONFIG.yaml", required_unless_present = "model_name_or_path")]
    pub what: Option<String>,
    /// Print the configuration with this key at another value and everything else such that ΔW stays the same at every
    /// step; may be repeated. No weights are read
    #[arg(long, value_name = "KEY=VALUE", conflicts_with_all = ["matched", "exact", "solve"])]
    pub rewrite: Vec<String>,
    /// Solve for the setting whose first step is as large as that of this scheme at this learning rate, e.g. lora@2e-4
    #[arg(id = "matched", long = "match", value_name = "SCHEME@RATE")]
    pub matched: Option<String>,
    /// What --match may change
    #[arg(long, value_name = "KNOB", default_value = "lr", requires = "matched")]
    pub solve: Solve,
    /// Compute the singular values of every layer (an SVD each) instead of estimating them in one pass
    #[arg(long)]
    pub exact: bool,
    /// Show every layer
    #[arg(long)]
    pub layers: bool,
}

/// What `--match` changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Solve {
    /// Learning rates
    Lr,
    /// lora_alpha
    Scaling,
    /// The size of both factors at initialisation
    #[value(alias = "start")]
    Init,
}

impl Solve {
    /// The same for the library.
    pub fn knob(self) -> Knob {
        match self {
            Solve::Lr => Knob::Rate,
            Solve::Scaling => Knob::Scaling,
            Solve::Init => Knob::Initialization,
        }
    }
}

/// Type of the weights of a residual checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ResidualType {
    /// As in the model: the result is rounded once
    Model,
    /// 32-bit floats: nothing is rounded
    Float32,
}

#[derive(Debug, Args)]
pub struct Eval {
    #[command(flatten)]
    pub source: Source,
    /// Data files (.jsonl, .json, .txt, also .gz), or a generated set such as demo:restaurants
    #[arg(long, value_name = "FILE", required = true, alias = "eval-data")]
    pub data: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Generate {
    #[command(flatten)]
    pub source: Source,
    /// Text to continue; standard input when absent. May be repeated
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Vec<String>,
    /// Talk with the model through its chat template; with --prompt a single turn
    #[arg(long)]
    pub chat: bool,
    /// System message of a chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
    /// Chat template: Jinja text, a file of it, or chatml
    #[arg(long, value_name = "TEMPLATE", requires = "chat")]
    pub chat_template: Option<String>,
    /// 0 always takes the most likely token
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 0.0, help_heading = "Sampling")]
    pub temperature: f64,
    /// Keep the most likely tokens up to this share of the probability
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 1.0, help_heading = "Sampling")]
    pub top_p: f64,
    /// Keep this many of the most likely tokens; 0 keeps all
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
    pub top_k: usize,
    /// Weaken tokens that occurred already; 1 changes nothing
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 1.0, help_heading = "Sampling")]
    pub repetition_penalty: f64,
    /// Longest continuation in tokens
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Sampling")]
    pub max_new_tokens: usize,
    /// Seed of the choices
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Sampling")]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct Merge {
    /// Model folder or hub id; by default the base that the adapter names
    #[arg(long, value_name = "DIR|HUB_ID", alias = "model-name-or-path")]
    pub model: Option<String>,
    /// Adapter folder or hub id
    #[arg(long, value_name = "DIR|HUB_ID", alias = "adapter-name-or-path")]
    pub adapter: String,
    /// Folder for the merged model
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Branch, tag or commit of a hub model
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// Merge although the model is not the one that the adapter was started on
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct Convert {
    /// Adapter folder or hub id
    #[arg(value_name = "ADAPTER")]
    pub adapter: String,
    /// Folder for the result
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// Form of the result
    #[arg(long, value_name = "FORM", default_value = "plain")]
    pub to: Form,
    /// Move every layer's scaling into B (then lora_alpha = r everywhere, no patterns, no rsLoRA), for programs that
    /// know one scaling only, such as llama.cpp
    #[arg(long)]
    pub fold_scaling: bool,
    /// Cut every layer to this rank by SVD, and print the error
    #[arg(long, value_name = "N")]
    pub rank: Option<usize>,
    /// Base model, needed for starts that are made from its weights
    #[arg(long, value_name = "DIR|HUB_ID")]
    pub model: Option<String>,
}

/// Form of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// PEFT's meaning: loads onto the untouched base
    Plain,
    /// Rank r with the recipe of its start
    Native,
}

#[derive(Debug, Args)]
pub struct Compare {
    /// Grid file: the keys of a training configuration, and schemes, models, tasks (docs/comparing.md)
    #[arg(value_name = "GRID.yaml")]
    pub grid: PathBuf,
    /// Runs at a time; one for each core by default. The cores are shared out among them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..).map(usize::from))]
    pub jobs: Option<usize>,
    /// Count and time the runs by trials of a few steps, and stop
    #[arg(long, visible_alias = "dry-run")]
    pub plan: bool,
    /// Print a command for each run that is left, and stop
    #[arg(long, conflicts_with = "plan")]
    pub list: bool,
    /// Work on part I of N only, for several machines
    #[arg(long, value_name = "I/N", value_parser = crate::commands::shard)]
    pub shard: Option<Shard>,
    /// Make one run, in this process
    #[arg(long, value_name = "RUN", conflicts_with_all = ["plan", "list", "shard"])]
    pub only: Option<String>,
    /// Copy the scored runs of these output folders into the grid's own, and stop
    #[arg(long, value_name = "DIR", num_args = 1.., conflicts_with_all = ["plan", "list", "shard", "only"])]
    pub gather: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Report {
    /// Run folders, or output folders of comparisons
    #[arg(value_name = "DIR", required = true)]
    pub dirs: Vec<PathBuf>,
    /// File to write; its ending says what: .html, .md, .csv (a line for each run), .json. May be repeated
    #[arg(long, short, value_name = "FILE")]
    pub output: Vec<PathBuf>,
    /// Folder for every plot as SVG and PNG
    #[arg(long, value_name = "DIR")]
    pub plots: Option<PathBuf>,
    /// Folder for result files in the form of the PEFT project's method comparison
    #[arg(long, value_name = "DIR")]
    pub peft_results: Option<PathBuf>,
    /// Title of the page
    #[arg(long, value_name = "TEXT", default_value = "Comparison")]
    pub title: String,
}

#[derive(Debug, Args)]
pub struct Info {
    /// Folder or hub id of a model or an adapter
    #[arg(value_name = "MODEL_OR_ADAPTER")]
    pub path: String,
    /// Branch, tag or commit on the hub
    #[arg(long, value_name = "NAME")]
    pub revision: Option<String>,
    /// List every linear layer
    #[arg(long)]
    pub layers: bool,
}

#[derive(Debug, Args)]
pub struct Verify {
    /// Adapter folder or hub id
    #[arg(value_name = "ADAPTER")]
    pub adapter: String,
    /// The base model, to compare with
    #[arg(long, value_name = "DIR|HUB_ID", alias = "model")]
    pub base: Option<String>,
}

/// Verbs in the order of the documentation.
pub const ORDER: [&str; 13] = [
    "train",
    "init",
    "plan",
    "eval",
    "generate",
    "merge",
    "convert",
    "compare",
    "report",
    "info",
    "verify",
    "schemes",
    "completions",
];

/// The whole command line, with the flags that are made from the key table.
pub fn command() -> Command {
    let train_help = "Every key of a configuration file is a flag as well (`--help` lists all), and `--set key=value` sets \
                      any of them.\nFlags win over --set, --set over the file, the file over defaults.";
    Cli::command()
        .mut_subcommand("train", |c| with_keys(c, |_| true).after_help(train_help))
        .mut_subcommand("init", |c| with_keys(c, |k| k.is(Mark::Init)))
        .mut_subcommand("plan", |c| with_keys(c, |k| k.is(Mark::Plan)))
        .mut_subcommand("info", |c| with_keys(c, |k| k.is(Mark::Info)))
        .mut_subcommand("eval", |c| with_keys(c, |k| k.is(Mark::Eval)))
        .mut_subcommand("generate", |c| with_flags(c, |k| k.is(Mark::Generate)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::command().debug_assert();
    }
}
