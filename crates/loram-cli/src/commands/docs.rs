//! `loram docs PAGE`: pages of the documentation that are generated from tables in the code.

mod coming_from;
mod markdown;
mod schema;

use crate::console::Console;
use crate::error::Result;
use clap::{Command, ValueEnum};
use loram_train::config::{keys, yaml};
use markdown::cell;
use serde_json::{Value, json};
use std::fmt::Write;

/// A generated page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DocsPage {
    /// `docs/configuration.md`
    Configuration,
    /// `docs/schemes.md`
    Schemes,
    /// `docs/commands.md`
    Commands,
    /// `docs/models.md`
    Models,
    /// `docs/coming-from.md`
    ComingFrom,
    /// `docs/configuration.schema.json`: JSON Schema of a configuration, for editors
    Schema,
}

/// `command` is the whole command line, whose help texts are a page.
pub fn run(page: DocsPage, command: Command, console: &Console) -> Result<()> {
    let text = match page {
        DocsPage::Configuration => configuration(),
        DocsPage::Schemes => schemes(),
        DocsPage::Commands => commands(command),
        DocsPage::Models => models(),
        DocsPage::ComingFrom => coming_from::page(),
        DocsPage::Schema => format!("{:#}\n", schema::schema()),
    };
    console.result(|| text.clone(), &json!({ "markdown": text }))
}

fn configuration() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         *This page is generated from the program's key table (`loram docs configuration`).*\n\n\
         A configuration is one flat YAML file. Names and meanings are those of transformers, PEFT and TRL wherever they have \
         the key. The same keys work as `--set key=value` and as flags (`learning_rate` is `--learning-rate`; \
         `--learning_rate` is understood too). A flag wins over `--set`, that over the file, the file over the default. An \
         unknown key is an error that names the nearest known one. `loram train … --dry-run` shows every value and where it \
         came from.\n\n\
         Editors complete and check keys by [the JSON Schema](configuration.schema.json) (`loram docs schema > loram.schema.json`): \
         with the YAML language server, begin the file with `# yaml-language-server: $schema=loram.schema.json`.\n",
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
         *This page is generated from the registry (`loram docs schemes`); `loram schemes` prints the same on a terminal.*\n\n\
         A scheme initialises an adapter: from a weight `W` it computes `A₀` and `B₀`. If `B₀A₀` is not 0 (the base column \
         says `W − s·B₀A₀`), `s·B₀A₀` is subtracted from the base, so that the output of the model does not change at step 0. \
         Such an adapter is saved in plain form by default, which loads onto the untouched base (see [adapters](adapters.md)).\n\n\
         | scheme | initialisation | base | reads W | reads data | options | source |\n|---|---|---|---|---|---|---|\n",
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
    out += "\n## Options\n\n\
            Every option is a configuration key and a flag (`--corda-method`). `init_scale_a` and `init_scale_b` multiply \
            `A₀` and `B₀` of every scheme.\n\n\
            | option | scheme | default | values | meaning |\n|---|---|---|---|---|\n";
    for s in loram_core::registry() {
        for o in s.options {
            let (expected, help) = (cell(o.expected), cell(o.help));
            let _ = writeln!(out, "| `{}` | `{}` | `{}` | {expected} | {help} |", o.key, s.name, o.default);
        }
    }
    out += "\n## Choosing a scheme\n\n\
            `loram` is the default: it needs one pass over each weight (its norm), no SVD, and its factors can be recomputed \
            from one number per layer. `lora` is PEFT's default. `pissa`, `milora` and `olora` decompose every weight; use \
            them for comparisons, and for models that were initialised with them.\n\n\
            The learning rate depends on the scheme: at the same rate, LoRAM moves the weights several times further per step \
            than `lora`, so a fair comparison tries several rates for each.\n\n\
            The gains of `loram`, the data-driven schemes and `loftq`, calibration data and costs: \
            [initialisation](initialisation.md).\n";
    out
}

fn models() -> String {
    let mut table = String::from(
        "| `model_type` | models | language model | classification, regression | token classification | GGUF | compared with |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for f in loram_io::family::families() {
        let gguf = f.gguf.map_or("–".to_string(), |name| format!("`{name}`"));
        let (writes, about, checked) = (if f.writes { "yes" } else { "–" }, cell(f.about), cell(f.checked));
        let tags = if f.tags_tokens { "yes" } else { "–" };
        let _ = writeln!(table, "| `{}` | {about} | {writes} | yes | {tags} | {gguf} | {checked} |", f.model_type);
    }
    include_str!("models.md").replace("{families}\n", &table)
}

fn commands(mut command: Command) -> String {
    let mut out = String::from(
        "# Commands\n\n*This page is generated from the program's help (`loram docs commands`).*\n\n\
         Every command takes `--json` (one JSON object on standard output, messages on standard error), `--quiet`, \
         `--verbose` and `--threads`. Exit codes: 0 success, 1 failure while running, 2 wrong usage or input, 130 and 143 stopped by a signal.\n",
    );
    command = command.term_width(100);
    command.build();
    for sub in command.get_subcommands().filter(|s| !s.is_hide_set() && s.get_name() != "help") {
        let help = sub.clone().disable_help_flag(true).render_help().to_string();
        let help: Vec<&str> = help.lines().map(str::trim_end).collect();
        let _ = write!(out, "\n## loram {}\n\n```text\n{}\n```\n", sub.get_name(), help.join("\n").trim_end());
    }
    out
}
