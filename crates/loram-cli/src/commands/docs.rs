//! `loram docs PAGE`: pages of the documentation that are made from tables in the code.

use crate::cli::{self, Page};
use crate::console::Console;
use crate::error::Result;
use loram_train::config::{keys, yaml};
use serde_json::{Value, json};
use std::fmt::Write;

pub fn run(page: Page, console: &Console) -> Result<()> {
    let text = match page {
        Page::Configuration => configuration(),
        Page::Schemes => schemes(),
        Page::Commands => commands(),
    };
    console.result(|| text.clone(), &json!({ "markdown": text }))
}

/// A cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn configuration() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         *This page is made from the program's key table (`loram docs configuration`).*\n\n\
         A configuration is one flat YAML file. Names and meanings are those of transformers, PEFT and TRL wherever they have \
         the key. The same keys work as `--set key=value` and as flags (`learning_rate` is `--learning-rate`; \
         `--learning_rate` is understood too). A flag wins over `--set`, that over the file, the file over the default. An \
         unknown key is an error that names the nearest known one. `loram train … --dry-run` shows every value and where it \
         came from.\n",
    );
    let mut section = "";
    for key in keys() {
        if key.section != section {
            section = key.section;
            let _ = write!(out, "\n## {section}\n\n| key | default | values | meaning |\n|---|---|---|---|\n");
        }
        let aliases = match key.aliases {
            [] => String::new(),
            list => format!("<br>also `{}`", list.join("`, `")),
        };
        let default = match &key.default {
            Value::Null => "null".to_string(),
            Value::String(s) if s.is_empty() => "–".into(),
            Value::Array(a) if a.is_empty() => "[]".into(),
            Value::String(s) => format!("`{s}`"),
            other => format!("`{}`", yaml(other)),
        };
        let _ =
            writeln!(out, "| `{}`{aliases} | {default} | {} | {} |", key.name, cell(&key.expected), cell(&key.help));
    }
    out
}

fn schemes() -> String {
    let mut out = String::from(
        "# Schemes\n\n\
         *This page is made from the registry (`loram docs schemes`); `loram schemes` prints the same on a terminal.*\n\n\
         A scheme is the start of an adapter: from a weight `W` it makes `A₀` and `B₀`. Where `B₀A₀` is not 0 (the base column \
         says `W − s·B₀A₀`), the product is taken off the base, so that the model says at step 0 what it said before; such an \
         adapter is saved in plain form by default, which loads onto the untouched base (see [adapters](adapters.md)).\n\n\
         | scheme | start | base | needs W | needs data | options | source |\n|---|---|---|---|---|---|---|\n",
    );
    for s in loram_core::registry() {
        let base = if s.changes_base { "`W − s·B₀A₀`" } else { "unchanged" };
        let options = match &s.option_keys()[..] {
            [] => "–".to_string(),
            list => format!("`{}`", list.join("`, `")),
        };
        let needs = if s.needs_weight() { "yes" } else { "no" };
        let data = s.statistic.describe().unwrap_or("no");
        let (summary, source) = (cell(s.summary), cell(s.source));
        let _ = writeln!(out, "| `{}` | {summary} | {base} | {needs} | {data} | {options} | {source} |", s.name);
    }
    out += "\n## Which one\n\n\
            `loram` is the default: it needs one pass over each weight (its norm), no SVD, and its start can be made again from \
            one number per layer. `lora` is what PEFT does without an option. `pissa`, `milora` and `olora` decompose every \
            weight; they are here to compare with, and for models that were started with them.\n\n\
            The learning rate belongs to the scheme: at the same rate LoRAM moves the weights several times further per step \
            than `lora`, so that a fair comparison tries several rates for each.\n\n\
            ## Options of `loram`\n\n\
            - `basis`: `dst` (default; the sine basis), `random-orthogonal`, `gaussian`, `dct`.\n\
            - `gain`: how much of the weight's magnitude the start has. `log` (default) is ln r / ln min(n, m); `exact` takes \
            the weight's true spectrum (an SVD); `sketch` estimates it; `log-half`; `auto` looks at gradients and the \
            learning rate, so that the first step moves every layer by the same share of its norm (`auto:SHARE`; 0.03); \
            `track:SCHEME` copies another scheme's magnitude; or a number in (0, 1].\n\
            - `gain_statistic`: `second-moment` (default), or `variance` as in the authors' code.\n\n\
            Options of the data-driven schemes and of `loftq`, what a calibration file is and what it costs: \
            [starts](starts.md).\n";
    out
}

fn commands() -> String {
    let mut out = String::from(
        "# Commands\n\n*This page is made from the program's own help (`loram docs commands`).*\n\n\
         Every verb takes `--json` (one JSON object on standard output, all else on standard error), `--quiet`, `--verbose` and \
         `--threads`. Exit codes: 0 done, 1 failed while running, 2 wrong usage or input, 130 and 143 stopped by a signal.\n",
    );
    let mut command = cli::command().term_width(100);
    command.build();
    let mut all: Vec<_> = command.get_subcommands_mut().collect();
    all.sort_by_key(|c| cli::ORDER.iter().position(|n| *n == c.get_name()));
    for sub in all.into_iter().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        let help = sub.clone().disable_help_flag(true).render_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(out, "\n## loram {}\n\n```text\n{}\n```\n", sub.get_name(), help.join("\n").trim_end());
    }
    out
}
