//! Configuration keys as flags: made from the key table of `loram_train`, so that every key has one.

use crate::error::Result;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use loram_train::TrainConfig;
use loram_train::config::{FlagForm, Key, Layer, Mark, keys, yaml};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::Path;

/// A text that lives as long as the program, as clap wants names.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// Adds `--set` and a flag for each key for which `taken` holds.
pub fn with_keys(command: Command, taken: impl Fn(&Key) -> bool) -> Command {
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Set any key, as in a configuration file; may be repeated");
    with_flags(command.arg(set), taken)
}

/// Adds a flag for each key for which `taken` holds.
pub fn with_flags(command: Command, taken: impl Fn(&Key) -> bool) -> Command {
    command.args(keys().iter().filter(|k| taken(k)).map(flag).collect::<Vec<_>>())
}

fn flag(key: &'static Key) -> Arg {
    let name = leak(key.flag());
    let others = key.names().map(|n| leak(n.replace('_', "-"))).filter(|n| *n != name);
    let default = match &key.default {
        Value::Null => String::new(),
        Value::Array(a) if a.is_empty() => String::new(),
        Value::Object(o) if o.is_empty() => String::new(),
        Value::String(s) if s.is_empty() => String::new(),
        Value::String(s) => format!(" [default: {s}]"),
        other => format!(" [default: {}]", yaml(other)),
    };
    let mut arg = Arg::new(key.name)
        .long(name)
        .aliases(others.collect::<Vec<_>>())
        .help(leak(format!("{}{default}", key.help)))
        .help_heading(key.section)
        .value_name(key.placeholder)
        .hide_short_help(!key.is(Mark::Common));
    if key.name == "output_dir" {
        arg = arg.short('o');
    }
    match key.form {
        FlagForm::Value => arg.allow_negative_numbers(true),
        FlagForm::List => arg.allow_negative_numbers(true).action(ArgAction::Append),
        FlagForm::Switch => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
        FlagForm::Optional(missing) => arg.num_args(0..=1).require_equals(true).default_missing_value(missing),
    }
}

/// The layers that the command line gives: the file, `--set`, flags.
pub fn layers(matches: &ArgMatches, file: Option<&Path>) -> Result<Vec<Layer>> {
    let mut out = Vec::new();
    if let Some(path) = file {
        out.push(Layer::from_file(path)?);
    }
    let settings: Vec<&String> = matches.try_get_many("set").ok().flatten().into_iter().flatten().collect();
    out.push(Layer::from_settings(&settings)?);
    let mut flags = Map::new();
    for key in keys().iter().filter(|k| given(matches, k.name)) {
        // a command may have an argument of its own with that name, in a type of its own
        let Ok(Some(values)) = matches.try_get_many::<String>(key.name) else { continue };
        let values: Vec<&String> = values.collect();
        let value = match values[..] {
            [one] => value(one),
            _ => values.iter().flat_map(|v| v.split(',')).map(|v| Value::String(v.trim().into())).collect(),
        };
        flags.insert(key.name.to_string(), value);
    }
    out.push(Layer::from_flags(flags));
    Ok(out)
}

/// True if an argument stands on the command line.
pub fn given(matches: &ArgMatches, id: &str) -> bool {
    matches.try_contains_id(id).unwrap_or(false) && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Lists and maps are read as YAML; the types of the keys read everything else from text.
fn value(text: &str) -> Value {
    match text.trim_start().starts_with(['[', '{']) {
        true => serde_saphyr::from_str(text).unwrap_or_else(|_| text.into()),
        false => text.into(),
    }
}

/// The configuration of a command that takes some of the keys, without the checks that a training run needs.
pub fn partial(matches: &ArgMatches) -> Result<TrainConfig> {
    Ok(TrainConfig::layered(&layers(matches, None)?)?)
}

/// Brings arguments into the form that clap expects: `--learning_rate` becomes `--learning-rate`, and the value of a switch
/// or of `--resume` may follow after a space.
pub fn normalise(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let flags = |wanted: fn(FlagForm) -> bool| -> Vec<String> {
        let names = keys().iter().filter(|k| wanted(k.form)).flat_map(Key::names);
        names.map(|n| format!("--{}", n.replace('_', "-"))).collect()
    };
    let switches = flags(|form| form == FlagForm::Switch);
    let optional = flags(|form| matches!(form, FlagForm::Optional(_)));
    let mut out: Vec<OsString> = Vec::new();
    let mut rest = false;
    for arg in args {
        let Some(text) = arg.to_str().filter(|_| !rest) else {
            out.push(arg);
            continue;
        };
        rest |= text == "--";
        let last = out.last().and_then(|l| l.to_str()).unwrap_or_default().to_string();
        let word = ["true", "false", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
        let path = !text.starts_with('-') && !text.ends_with(".yaml") && !text.ends_with(".yml");
        if (word && switches.contains(&last)) || (path && optional.contains(&last)) {
            out.pop();
            out.push(format!("{last}={text}").into());
            continue;
        }
        match text.strip_prefix("--") {
            Some(flag) => {
                let (name, value) = flag.split_once('=').map_or((flag, None), |(n, v)| (n, Some(v)));
                let name = name.replace('_', "-");
                out.push(value.map_or(format!("--{name}"), |v| format!("--{name}={v}")).into());
            }
            None => out.push(arg),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(args: &[&str]) -> Vec<String> {
        normalise(args.iter().map(OsString::from)).into_iter().map(|a| a.into_string().unwrap()).collect()
    }

    #[test]
    fn flags_as_people_type_them() {
        assert_eq!(normal(&["--learning_rate", "1e-4"]), ["--learning-rate", "1e-4"]);
        assert_eq!(normal(&["--lora_alpha=16", "a_b"]), ["--lora-alpha=16", "a_b"]);
        assert_eq!(normal(&["--packing", "True", "x.yaml"]), ["--packing=True", "x.yaml"]);
        assert_eq!(normal(&["--packing", "x.yaml"]), ["--packing", "x.yaml"]);
        assert_eq!(normal(&["--resume", "run/checkpoint-5"]), ["--resume=run/checkpoint-5"]);
        assert_eq!(normal(&["--resume", "x.yaml"]), ["--resume", "x.yaml"]);
        assert_eq!(normal(&["--", "--a_b"]), ["--", "--a_b"]);
    }

    #[test]
    fn every_key_has_one_flag() {
        let command = with_keys(Command::new("x"), |_| true);
        command.clone().debug_assert();
        let long: Vec<_> = command.get_arguments().filter_map(|a| a.get_long()).collect();
        for name in ["model", "data", "eval-data", "init", "r", "lora-alpha", "learning-rate", "resume"] {
            assert!(long.contains(&name), "{name}");
        }
    }

    #[test]
    fn values_become_layers() {
        let command = with_keys(Command::new("x"), |_| true);
        let args = [
            "x",
            "--model",
            "m",
            "--data",
            "a.jsonl",
            "--data",
            "b.jsonl",
            "--rank_pattern",
            "{q_proj: 4}",
            "--set",
            "r=4",
            "--packing",
            "--target_modules",
            "q_proj,v_proj",
        ];
        let matches = command.get_matches_from(normalise(args.iter().map(OsString::from)));
        let c = partial(&matches).unwrap();
        assert_eq!((c.r, c.packing, c.train_data.len(), c.rank_pattern["q_proj"]), (4, true, 2, 4));
        assert_eq!(c.target_modules, loram_core::TargetModules::Names(vec!["q_proj".into(), "v_proj".into()]));
    }
}
