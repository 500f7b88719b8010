//! Configuration keys as flags: made from the key table of `loram_train`, so that every key has one.

use crate::error::Result;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};
use loram_train::TrainConfig;
use loram_train::config::{Field, Layer, fields, yaml};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::Path;

/// Keys that the short help (`-h`) shows.
const FREQUENT: [&str; 18] = [
    "model_name_or_path",
    "train_data",
    "eval_data",
    "output_dir",
    "init_lora_weights",
    "r",
    "lora_alpha",
    "use_rslora",
    "target_modules",
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_length",
    "packing",
    "seed",
    "device",
];

/// Flags that have a shorter name than their key.
const SHORT: [(&str, &str); 6] = [
    ("model_name_or_path", "model"),
    ("adapter_name_or_path", "adapter"),
    ("train_data", "data"),
    ("init_lora_weights", "init"),
    ("output_dir", "output"),
    ("resume_from_checkpoint", "resume"),
];

/// A text that lives as long as the program, as clap wants names.
fn leak(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

fn flag_name(key: &'static str) -> &'static str {
    SHORT.iter().find(|s| s.0 == key).map_or_else(|| leak(key.replace('_', "-")), |s| s.1)
}

fn is_switch(f: &Field) -> bool {
    f.expected.starts_with("true or false")
}

fn is_list(f: &Field) -> bool {
    f.expected.contains("list of")
}

/// Adds `--set` and a flag for each of these keys.
pub fn with_keys(command: Command, keys: impl Fn(&Field) -> bool) -> Command {
    let set = Arg::new("set")
        .long("set")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Set any key, as in a configuration file; may be repeated");
    with_flags(command.arg(set), keys)
}

/// Adds a flag for each of these keys.
pub fn with_flags(command: Command, keys: impl Fn(&Field) -> bool) -> Command {
    let args = fields().into_iter().filter(keys).map(|f| flag(&f));
    command.args(args.collect::<Vec<_>>())
}

fn flag(f: &Field) -> Arg {
    let name = flag_name(f.name);
    let others = f.aliases.iter().chain([&f.name]).map(|a| leak(a.replace('_', "-"))).filter(|a| *a != name);
    let default = match &f.default {
        Value::Null => String::new(),
        Value::Array(a) if a.is_empty() => String::new(),
        Value::Object(o) if o.is_empty() => String::new(),
        Value::String(s) if s.is_empty() => String::new(),
        Value::String(s) => format!(" [default: {s}]"),
        other => format!(" [default: {}]", yaml(other)),
    };
    let mut arg = Arg::new(f.name)
        .long(name)
        .aliases(others.collect::<Vec<_>>())
        .help(leak(format!("{}{default}", f.help)))
        .help_heading(f.section)
        .hide_short_help(!FREQUENT.contains(&f.name));
    if f.name == "output_dir" {
        arg = arg.short('o');
    }
    arg = if is_switch(f) {
        arg.num_args(0..=1).require_equals(true).default_missing_value("true").value_name("BOOL")
    } else if f.name == "resume_from_checkpoint" {
        arg.num_args(0..=1).require_equals(true).default_missing_value("auto").value_name("CHECKPOINT")
    } else {
        arg.value_name(value_name(f)).allow_negative_numbers(true)
    };
    if is_list(f) { arg.action(ArgAction::Append) } else { arg }
}

fn value_name(f: &Field) -> &'static str {
    let e = &f.expected;
    match () {
        () if f.name.ends_with("_data") => "FILE",
        () if f.name == "init_lora_weights" => "SCHEME",
        () if f.name == "output_dir" => "DIR",
        () if f.name == "target_modules" || f.name == "exclude_modules" => "NAMES|REGEX",
        () if f.name.starts_with("model") || f.name.starts_with("adapter_name") => "DIR|HUB_ID",
        () if e.starts_with("a whole number") => "N",
        () if e.starts_with("a number") => "X",
        () if e.starts_with("one of") => "CHOICE",
        () if e.starts_with("a map") => "{KEY: VALUE}",
        () => "VALUE",
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
    for f in fields() {
        let given = matches.try_contains_id(f.name).unwrap_or(false)
            && matches.value_source(f.name) == Some(ValueSource::CommandLine);
        if !given {
            continue;
        }
        // a command may have an argument of its own with that name, in a type of its own
        let Ok(Some(values)) = matches.try_get_many::<String>(f.name) else { continue };
        let values: Vec<&String> = values.collect();
        let value = match values[..] {
            [one] => value(one),
            _ => values.iter().flat_map(|v| v.split(',')).map(|v| Value::String(v.trim().into())).collect(),
        };
        flags.insert(f.name.to_string(), value);
    }
    out.push(Layer::from_flags(flags));
    Ok(out)
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

/// Arguments as people type them: `--learning_rate` is `--learning-rate`, and a switch or `--resume` may have its value
/// after a space.
pub fn normalise(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let switches: Vec<String> = fields()
        .iter()
        .filter(|f| is_switch(f))
        .flat_map(|f| [vec![f.name], f.aliases.to_vec()].concat())
        .map(|n| format!("--{}", n.replace('_', "-")))
        .collect();
    let resume = ["--resume", "--resume-from-checkpoint"];
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
        if (word && switches.contains(&last)) || (path && resume.contains(&last.as_str())) {
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
