//! `loram init-config`: a configuration file with comments, from flags or from answers on a terminal.

use crate::console::Console;
use crate::error::{Error, Result};
use crate::keys::{given, partial};
use crate::program::program;
use clap::{ArgMatches, Args};
use loram_io::atomic::{Existing, Output, write_bytes};
use loram_train::TrainConfig;
use loram_train::config::{Key, Mark, key, keys, yaml};
use loram_train::shell::quoted;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Arguments of `loram init-config`.
#[derive(Debug, Args)]
pub struct InitConfigArgs {
    /// File to write [default: standard output]
    #[arg(value_name = "CONFIG.yaml")]
    pub file: Option<PathBuf>,
    /// Replace a file that exists
    #[arg(long, requires = "file")]
    pub overwrite: bool,
}

/// Keys that are asked for on a terminal where no flag gives them; true for those that a run needs.
const QUESTIONS: [(&str, bool); 4] =
    [("model_name_or_path", true), ("train_data", true), ("eval_data", false), ("output_dir", false)];

pub fn run(args: &InitConfigArgs, matches: &ArgMatches, console: &Console) -> Result<()> {
    if let Some(path) = &args.file {
        let existing = if args.overwrite { Existing::Replace } else { Existing::Refuse };
        Output { path, existing }.check()?;
    }
    let mut config = partial(matches)?;
    let missing = QUESTIONS.iter().any(|&(name, needed)| needed && is_empty(&config, name));
    let mut answered = Vec::new();
    if missing && !console.json && !console.quiet && std::io::stdin().is_terminal() && std::io::stderr().is_terminal() {
        answered = ask(&mut config, &mut std::io::stdin().lock(), &mut std::io::stderr())?;
    }
    config.check()?;
    let stated =
        |key: &Key| answered.contains(&key.name) || given(matches, key.name) || config.differs_from_default(key);
    let text = text(&config, stated, args.file.as_deref());
    let Some(path) = &args.file else {
        return console.result(|| text.clone(), &json!({ "config": text }));
    };
    write_bytes(path, text.as_bytes())?;
    let next = format!("{} train {} --dry-run", program(), quoted(&path.to_string_lossy()));
    let shown = || format!("{}\n\nnext: {next}\n", path.display());
    console.result(shown, &json!({ "written": path, "next": next }))
}

fn is_empty(config: &TrainConfig, name: &str) -> bool {
    match config.get(name) {
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        value => value.is_none_or(|v| v.is_null()),
    }
}

/// Asks for what no flag gives, until each answer is a value of its key; returns the keys that were answered.
fn ask(config: &mut TrainConfig, input: &mut impl BufRead, output: &mut impl Write) -> Result<Vec<&'static str>> {
    let failed = |e: std::io::Error| Error::Failed(format!("cannot ask on the terminal: {e}"));
    let mut answered = Vec::new();
    for (name, needed) in QUESTIONS {
        let Some(key) = key(name) else { continue };
        if !is_empty(config, name) && *config.get(name).as_ref().unwrap_or(&Value::Null) != key.default {
            continue;
        }
        let default = match &key.default {
            Value::String(text) if !text.is_empty() => format!(" [{text}]"),
            _ if needed => String::new(),
            _ => " [none]".into(),
        };
        loop {
            write!(output, "{}\n{}{default}: ", key.help, key.name).and_then(|()| output.flush()).map_err(failed)?;
            let mut line = String::new();
            if input.read_line(&mut line).map_err(failed)? == 0 {
                return Err(Error::Usage(format!("{name}: the input ended before an answer: give it as a flag")));
            }
            let answer = line.trim();
            if answer.is_empty() && needed {
                continue;
            }
            if answer.is_empty() {
                break;
            }
            let value = match key.default {
                Value::Array(_) => answer.split(',').map(|v| Value::from(v.trim())).collect(),
                _ => Value::from(answer),
            };
            match config.set(name, value) {
                Ok(()) => {
                    answered.push(key.name);
                    break;
                }
                Err(e) => writeln!(output, "{e}").map_err(failed)?,
            }
        }
    }
    Ok(answered)
}

/// The file: keys that are stated with their values, other common ones as comments with their defaults.
fn text(config: &TrainConfig, stated: impl Fn(&Key) -> bool, file: Option<&Path>) -> String {
    let file = file.map_or("FILE.yaml".into(), |path| quoted(&path.to_string_lossy()));
    let mut out = format!(
        "# Configuration of `loram train` ({}). Check it before it runs: loram train {file} --dry-run\n\
         # Keys behind a # have the default that stands there. All keys: loram train --help-keys\n",
        env!("CARGO_PKG_VERSION")
    );
    let mut section = "";
    for key in keys() {
        let shown = stated(key);
        if !shown && !key.is(Mark::Common) {
            continue;
        }
        if key.section != section {
            section = key.section;
            let _ = write!(out, "\n# --- {section}\n");
        }
        let _ = writeln!(out, "\n# {}", key.help);
        let value = if shown { config.get(key.name) } else { None };
        let comment = if shown { "" } else { "# " };
        let _ = writeln!(out, "{comment}{}: {}", key.name, yaml(value.as_ref().unwrap_or(&key.default)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: &str) -> TrainConfig {
        TrainConfig::from_yaml(yaml).unwrap()
    }

    #[test]
    fn the_file_means_what_was_given_with_and_without_its_comments() {
        let given = config("model: m\ndata: [a.jsonl, b.jsonl]\nr: 8\nlearning_rate: 0.0005\ncolumns: {prompt: q}\n");
        let written = text(&given, |k| given.differs_from_default(k), None);
        assert_eq!(config(&written).to_json(), given.to_json(), "{written}");
        // the defaults that stand behind a # are defaults
        let uncommented: String = written
            .lines()
            .map(|line| {
                match line.strip_prefix("# ").filter(|l| keys().iter().any(|k| l.starts_with(&format!("{}: ", k.name))))
                {
                    Some(key) => format!("{key}\n"),
                    None => format!("{line}\n"),
                }
            })
            .collect();
        assert!(uncommented.lines().count() == written.lines().count() && uncommented != written);
        assert_eq!(config(&uncommented).to_json(), given.to_json(), "{uncommented}");
        let lines = |wanted: &str| written.lines().filter(|l| *l == wanted).count();
        assert_eq!((lines("r: 8"), lines("# packing: false")), (1, 1), "{written}");
    }

    #[test]
    fn answers_become_values_and_wrong_ones_are_asked_for_again() {
        let mut config = TrainConfig::layered(&[]).unwrap();
        let mut asked = Vec::new();
        let answers = "\nassets/tiny-llama-en\na.jsonl, b.jsonl\n\nruns/x\n";
        let keys = ask(&mut config, &mut answers.as_bytes(), &mut asked).unwrap();
        assert_eq!(keys, ["model_name_or_path", "train_data", "output_dir"]);
        assert_eq!(config.model_name_or_path, "assets/tiny-llama-en");
        assert_eq!(config.train_data, ["a.jsonl", "b.jsonl"]);
        assert!(config.eval_data.is_empty());
        assert_eq!(config.output_dir, Path::new("runs/x"));
        let asked = String::from_utf8(asked).unwrap();
        assert_eq!(asked.matches("model_name_or_path: ").count(), 2, "{asked}");
        // what flags give is not asked for
        let mut config = TrainConfig::from_yaml("model: m\ndata: a.jsonl\n").unwrap();
        assert_eq!(ask(&mut config, &mut "dev.jsonl\n\n".as_bytes(), &mut Vec::new()).unwrap(), ["eval_data"]);
        let ended = ask(&mut TrainConfig::layered(&[]).unwrap(), &mut "".as_bytes(), &mut Vec::new());
        assert!(ended.unwrap_err().to_string().contains("model_name_or_path"));
    }
}
