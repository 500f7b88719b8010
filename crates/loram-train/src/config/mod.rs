//! The configuration of a run: one flat YAML document with the key names of transformers, PEFT and TRL, over which
//! `key=value` settings and flags are laid.

mod derived;
mod keys;
mod rewrite;
mod value;

pub use derived::FactorSetting;
pub use keys::{Field, TrainConfig, fields};
pub use rewrite::{REWRITABLE, Rewritten};
pub use value::{
    AdapterFormat, BaseMode, DeviceKind, FinetuningType, KeyType, MemoryCheck, OptimKind, ReportTo, Resume,
    SamplePrompts, SchedulerType, SchemeName, Strategy, TaskKind,
};

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// `--set key=value`.
    Set,
    /// What a setting was rewritten into.
    Rewrite,
    /// A flag of its own.
    Flag,
    /// A program that uses the library.
    Code,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Set => f.write_str("--set"),
            Origin::Rewrite => f.write_str("--rewrite"),
            Origin::Flag => f.write_str("flag"),
            Origin::Code => f.write_str("program"),
        }
    }
}

/// Values from one place; later layers win.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The place.
    pub origin: Origin,
    /// Values by key or alias.
    pub values: Map<String, Value>,
}

impl Layer {
    /// The keys of a YAML file. Errors: not readable, not YAML (with line), not a map.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Layer> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(|e| loram_io::Error::io("read", path, e))?;
        let values = parse_yaml(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        Ok(Layer { origin: Origin::File(path.to_path_buf()), values })
    }

    /// Settings of the form `key=value`; the value is read as YAML.
    pub fn from_settings<S: AsRef<str>>(settings: &[S]) -> Result<Layer> {
        let mut values = Map::new();
        for s in settings.iter().map(AsRef::as_ref) {
            let Some((key, value)) = s.split_once('=') else {
                return Err(Error::Config(format!("--set {s}: expected key=value")));
            };
            // text that is no YAML by itself, such as `*_proj`, is taken as it is
            let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.to_string()));
            values.insert(key.trim().to_string(), value);
        }
        Ok(Layer { origin: Origin::Set, values })
    }

    /// Values of flags.
    pub fn from_flags(values: Map<String, Value>) -> Layer {
        Layer { origin: Origin::Flag, values }
    }
}

/// A YAML document that is a map with text keys; an empty document is an empty map.
fn parse_yaml(text: &str) -> std::result::Result<Map<String, Value>, String> {
    let only_comments = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if only_comments {
        return Ok(Map::new());
    }
    // the first line says what and where; the rest draws it
    let first_line = |e: serde_saphyr::Error| {
        let text = e.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("error: ").unwrap_or(line).to_string()
    };
    match serde_saphyr::from_str::<Value>(text).map_err(first_line)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err("expected a map of `key: value` lines".into()),
    }
}

impl TrainConfig {
    /// [`TrainConfig::layered`], and the checks that a training run needs.
    pub fn resolve(layers: &[Layer]) -> Result<TrainConfig> {
        let config = TrainConfig::layered(layers)?;
        config.check()?;
        Ok(config)
    }

    /// Lays the values over the defaults, each layer over those before it. Errors name an unknown key and the nearest
    /// known one, or the key, its value, where it came from, and what is expected.
    pub fn layered(layers: &[Layer]) -> Result<TrainConfig> {
        let mut config = TrainConfig::default();
        for layer in layers {
            let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
            for (key, value) in &layer.values {
                let name = keys::canonical(key).ok_or_else(|| unknown_key(key, &layer.origin))?;
                if let Some(other) = seen.insert(name, key) {
                    let what = format!("`{other}` and `{key}` are the same key (from {}): give one", layer.origin);
                    return Err(Error::Config(what));
                }
                config.set_from(name, value, layer.origin.clone())?;
            }
        }
        Ok(config)
    }

    /// The configuration in a YAML text.
    pub fn from_yaml(text: &str) -> Result<TrainConfig> {
        let values = parse_yaml(text).map_err(Error::Config)?;
        TrainConfig::resolve(&[Layer { origin: Origin::Code, values }])
    }

    /// Sets one key by its name or alias.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) -> Result<()> {
        let name = keys::canonical(key).ok_or_else(|| unknown_key(key, &Origin::Code))?;
        self.set_from(name, &value.into(), Origin::Code)
    }

    fn set_from(&mut self, name: &'static str, value: &Value, origin: Origin) -> Result<()> {
        // transformers writes "not set" as -1
        let minus_one = value.as_i64() == Some(-1) || value.as_str() == Some("-1");
        let unset = minus_one && ["max_steps", "save_total_limit", "max_samples"].contains(&name);
        let value = if unset { &Value::Null } else { value };
        self.put(name, value)
            .map_err(|expected| Error::Config(format!("{name}: found {value} (from {origin}), expected {expected}")))?;
        self.origins.insert(name, origin);
        Ok(())
    }

    /// The resolved configuration as YAML: every key, with its origin as a comment where it is not the default.
    pub fn to_yaml(&self) -> String {
        let head = "# resolved configuration; `loram train` on this file starts the same run\n";
        self.yaml_of(head, |_| true)
    }

    /// The keys that are not at their default, as YAML under a line of comment.
    pub fn to_short_yaml(&self, head: &str) -> String {
        self.yaml_of(head, |f| self.get(f.name).is_some_and(|v| v != f.default))
    }

    fn yaml_of(&self, head: &str, shown: impl Fn(&Field) -> bool) -> String {
        let mut out = String::from(head);
        let mut section = "";
        for field in fields().into_iter().filter(shown) {
            if field.section != section {
                section = field.section;
                let _ = writeln!(out, "\n# {section}");
            }
            let value = self.get(field.name).unwrap_or(Value::Null);
            let _ = write!(out, "{}: {}", field.name, yaml(&value));
            if let Some(origin) = self.origins.get(field.name) {
                let _ = write!(out, "  # from {origin}");
            }
            out.push('\n');
        }
        out
    }

    /// Every key with its value, as a JSON object.
    pub fn to_json(&self) -> Map<String, Value> {
        fields().iter().map(|f| (f.name.to_string(), self.get(f.name).unwrap_or(Value::Null))).collect()
    }
}

/// A value as YAML: JSON, with small numbers in the notation that people use for learning rates.
pub fn yaml(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && x != 0.0 && x.abs() < 1e-2 => {
            let text = format!("{x:e}");
            // YAML 1.1 readers need the point
            if text.contains('.') { text } else { text.replace('e', ".0e") }
        }
        _ => value.to_string(),
    }
}

fn unknown_key(key: &str, origin: &Origin) -> Error {
    let all = fields();
    let names =
        all.iter().flat_map(|f| std::iter::once((f.name, f.name)).chain(f.aliases.iter().map(|a| (*a, f.name))));
    let near = names
        .map(|(n, f)| (strsim::jaro_winkler(n, &key.to_lowercase().replace('-', "_")), f))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = match near {
        Some((score, name)) if score > 0.7 => format!("; did you mean `{name}`?"),
        _ => "; `loram train --help-keys` lists all keys".into(),
    };
    Error::Config(format!("unknown key `{key}` (from {origin}){hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use loram_core::TargetModules;
    use serde_json::json;

    fn layer(origin: Origin, value: Value) -> Layer {
        Layer { origin, values: value.as_object().unwrap().clone() }
    }

    fn fails(yaml: &str) -> String {
        TrainConfig::from_yaml(yaml).unwrap_err().to_string()
    }

    #[test]
    fn later_layers_win_and_origins_are_kept() {
        let file = Origin::File("a.yaml".into());
        let c = TrainConfig::resolve(&[
            layer(file.clone(), json!({"model": "m", "data": "d.jsonl", "r": 4, "learning_rate": "2e-4", "seed": 1})),
            Layer::from_settings(&["r=16", "target_modules=[q_proj, v_proj]", "seed=7"]).unwrap(),
            layer(Origin::Flag, json!({"seed": "9"})),
        ])
        .unwrap();
        assert_eq!((c.r, c.seed, c.learning_rate), (16, 9, 2e-4));
        assert_eq!(c.target_modules, TargetModules::Names(vec!["q_proj".into(), "v_proj".into()]));
        assert_eq!(c.train_data, ["d.jsonl"]);
        assert_eq!(c.origins["model_name_or_path"], file);
        assert_eq!((&c.origins["r"], &c.origins["seed"]), (&Origin::Set, &Origin::Flag));
        assert!(!c.origins.contains_key("optim"));
        let text = c.to_yaml();
        assert!(text.contains("r: 16  # from --set\n") && text.contains("\noptim: \"adamw\"\n"), "{text}");
        let again = TrainConfig::from_yaml(&text).unwrap();
        assert_eq!(TrainConfig { origins: c.origins.clone(), ..again }, c);
    }

    #[test]
    fn mistakes_name_the_key_and_what_is_expected() {
        let e = fails("model: m\ndata: d\nlearningrate: 1e-4");
        assert!(e.contains("unknown key `learningrate`") && e.contains("did you mean `learning_rate`?"), "{e}");
        let e = fails("model: m\nlora_rnak: 4");
        assert!(e.contains("did you mean `r`?"), "{e}");
        let e = fails("model: m\ndata: d\nr: many");
        assert!(e.contains("r: found \"many\"") && e.contains("whole number") && e.contains("at least 1"), "{e}");
        let e = fails("model: m\ndata: d\nlora_dropout: 1.5");
        assert!(e.contains("lora_dropout") && e.contains("from 0 to below 1"), "{e}");
        let e = fails("model: m\ndata: d\nlr_scheduler_type: cosin");
        assert!(e.contains("one of cosine, linear, constant, constant_with_warmup"), "{e}");
        let e = fails("model: m\nmodel_name_or_path: n\ndata: d");
        assert!(e.contains("are the same key"), "{e}");
        let factors = |more: &str| fails(&format!("model: m\ndata: d\n{more}"));
        assert!(factors("lr_b: 1e-3\nloraplus_lr_ratio: 4").contains("lr_b and loraplus_lr_ratio"));
        assert!(factors("finetuning_type: full\ninit_scale_a: 2").contains("init_scale_a is for adapters"));
        assert!(factors("learning_rate: 0\nlr_a: 1e-3").contains("lr_a needs a learning_rate above 0"));
        assert!(factors("init_scale_b: 0").contains("init_scale_b: found 0"));
        assert!(fails("- a\n- b").contains("expected a map"));
        assert!(fails("data: d").contains("model_name_or_path"));
        assert!(fails("model: m").contains("train_data"));
    }

    #[test]
    fn values_in_the_ways_that_people_write_them() {
        let c = TrainConfig::from_yaml(
            "model: m\ndata: [a.jsonl, b.jsonl]\nmax_steps: -1\nsave_total_limit: null\nresume_from_checkpoint: true\n\
             eval_strategy: no\ntarget_modules: '.*(q|v)_proj'\nsample_prompts: 3\ninit: true\noptim: adamw_torch\n\
             rank_pattern: {q_proj: 4}\nadam_epsilon: 1e-6\ntask: causal-lm",
        )
        .unwrap();
        assert_eq!((c.max_steps, c.save_total_limit), (None, None));
        assert_eq!(c.resume_from_checkpoint, Resume::Latest);
        assert_eq!(c.eval_strategy, Some(Strategy::No));
        assert_eq!(c.target_modules, TargetModules::Regex(".*(q|v)_proj".into()));
        assert_eq!(c.sample_prompts, SamplePrompts::First(3));
        assert_eq!(c.init_lora_weights.0, "lora");
        assert_eq!((c.rank_pattern["q_proj"], c.adam_epsilon), (4, 1e-6));
        assert_eq!((c.optim, c.task), (OptimKind::AdamW, Some(TaskKind::CausalLm)));
    }

    #[test]
    fn every_default_reads_back() {
        let mut c = TrainConfig::default();
        for f in fields() {
            assert!(!f.help.is_empty() && !f.expected.is_empty(), "{}", f.name);
            c.put(f.name, &f.default).unwrap_or_else(|e| panic!("{}: default {} is not {e}", f.name, f.default));
        }
        assert_eq!(c, TrainConfig::default());
    }
}
