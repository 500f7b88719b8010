//! From layers of values to a configuration, and back to YAML and JSON.

use super::key::{Key, Mark};
use super::layer::{Layer, Origin};
use super::lookup::{key, keys, known_key, unknown};
use super::scheme_keys::put_option;
use super::table::TrainConfig;
use crate::{Error, Result};
use loram_core::scheme_option;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fmt::Write;

/// The paths and the weights of data of which some have a weight (`[{path: a.jsonl, weight: 0.3}, b.jsonl]`); the others have 1. `None`
/// where none has, or where an entry is something else, which is an error of the key.
fn weighted(data: &Value) -> Option<(Value, Value)> {
    let list = data.as_array().filter(|list| list.iter().any(Value::is_object))?;
    let entry = |entry: &Value| match entry {
        Value::Object(map) => {
            let known = map.keys().all(|k| k == "path" || k == "weight");
            let weight = map.get("weight").cloned().unwrap_or(Value::from(1.0));
            map.get("path").filter(|_| known).map(|path| (path.clone(), weight))
        }
        path => Some((path.clone(), Value::from(1.0))),
    };
    let (paths, weights): (Vec<Value>, Vec<Value>) =
        list.iter().map(entry).collect::<Option<Vec<_>>>()?.into_iter().unzip();
    Some((paths.into(), weights.into()))
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
        // all at once: a file from another trainer has many
        let all = layers.iter().flat_map(|l| l.values.keys().map(move |name| (name.as_str(), l)));
        let strange: Vec<(&str, String)> =
            all.filter(|(name, _)| key(name).is_none()).map(|(name, l)| (name, l.place(name))).collect();
        if !strange.is_empty() {
            return Err(unknown(&strange));
        }
        for layer in layers {
            let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
            for (name, value) in &layer.values {
                let key = known_key(name, &layer.origin)?;
                if let Some(other) = seen.insert(key.name, name) {
                    let what =
                        format!("`{other}` and `{name}` are the same key (from {}): give one", layer.place(name));
                    return Err(Error::Config(what));
                }
                match (key.name, weighted(value)) {
                    ("train_data", weights) => config.set_data(layer, name, weights)?,
                    _ => config.set_from(key, value, layer.origin.clone(), &layer.place(name))?,
                }
            }
        }
        Ok(config)
    }

    /// Sets the training data of a layer, whose entries may have weights beside their paths. Weights that came with the data of an
    /// earlier layer were for those.
    fn set_data(&mut self, layer: &Layer, name: &str, weights: Option<(Value, Value)>) -> Result<()> {
        let (origin, place) = (&layer.origin, layer.place(name));
        let row = known_key("data_weights", origin)?;
        let apart = row.names().any(|name| layer.values.contains_key(name));
        let stale = self.origins.get(row.name).is_some_and(|o| self.origins.get("train_data") == Some(o));
        let (paths, weights) = weights.unwrap_or_else(|| (layer.values[name].clone(), Value::Null));
        self.set_from(known_key(name, origin)?, &paths, origin.clone(), &place)?;
        if apart && !weights.is_null() {
            let what =
                format!("{place}: {name} has weights beside its paths, and there is data_weights as well: give one");
            return Err(Error::Config(what));
        }
        if !weights.is_null() {
            self.set_from(row, &weights, origin.clone(), &place)?;
        } else if !apart && stale {
            self.data_weights.clear();
            self.origins.remove(row.name);
        }
        Ok(())
    }

    /// The configuration in a YAML text.
    pub fn from_yaml(text: &str) -> Result<TrainConfig> {
        TrainConfig::resolve(&[Layer::from_yaml(text)?])
    }

    /// Sets one key by its name or alias.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<()> {
        self.set_from(known_key(name, &Origin::Code)?, &value.into(), Origin::Code, &Origin::Code.to_string())
    }

    /// `place` is where the value came from, for messages.
    pub(super) fn set_from(&mut self, key: &'static Key, value: &Value, origin: Origin, place: &str) -> Result<()> {
        let minus_one = value.as_i64() == Some(-1) || value.as_str() == Some("-1");
        let value = if minus_one && key.is(Mark::MinusOne) { &Value::Null } else { value };
        self.put(key.name, value).map_err(|expected| {
            Error::Config(format!("{}: found {value} (from {place}), expected {expected}", key.name))
        })?;
        self.origins.insert(key.name, origin);
        Ok(())
    }

    /// Sets a key by its own name. The error says what is expected.
    pub(super) fn put(&mut self, name: &str, value: &Value) -> std::result::Result<(), String> {
        match scheme_option(name) {
            Some(option) => put_option(&mut self.scheme_options, option, value),
            None => self.put_row(name, value),
        }
    }

    /// The value of a key by its own name, as it is written to files.
    pub(crate) fn value(&self, name: &str) -> Option<Value> {
        match scheme_option(name) {
            Some(option) => Some(self.scheme_options.get(option.key).cloned().unwrap_or(Value::Null)),
            None => self.row_value(name),
        }
    }

    /// The value of a key by name or alias, as it is written to files.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.value(key(name)?.name)
    }

    /// True if a key does not have its default.
    pub fn differs_from_default(&self, key: &Key) -> bool {
        self.value(key.name).is_some_and(|v| v != key.default)
    }

    /// The resolved configuration as YAML: every key, with its origin as a comment where it is not the default. Keys that
    /// `adapter_name_or_path` brings are absent, since they must not be given with it.
    pub fn to_yaml(&self) -> String {
        let head = "# resolved configuration; `loram train` on this file starts the same run\n";
        let of_adapter = self.adapter_name_or_path.is_some();
        self.yaml_of(head, |key| !(of_adapter && key.is(Mark::InAdapter)))
    }

    /// The keys that are not at their default, as YAML under a line of comment.
    pub fn to_short_yaml(&self, head: &str) -> String {
        self.yaml_of(head, |key| self.differs_from_default(key))
    }

    fn yaml_of(&self, head: &str, shown: impl Fn(&Key) -> bool) -> String {
        let mut out = String::from(head);
        let mut section = "";
        for key in keys().iter().filter(|k| shown(k)) {
            if key.section != section {
                section = key.section;
                let _ = writeln!(out, "\n# {section}");
            }
            let value = self.value(key.name).unwrap_or(Value::Null);
            let _ = write!(out, "{}: {}", key.name, yaml(&value));
            if let Some(origin) = self.origins.get(key.name) {
                let _ = write!(out, "  # from {origin}");
            }
            out.push('\n');
        }
        out
    }

    /// Every key with its value, as a JSON object.
    pub fn to_json(&self) -> Map<String, Value> {
        self.values_of(|_| true)
    }

    /// The keys for which `chosen` holds with their values, as a JSON object.
    pub fn values_of(&self, chosen: impl Fn(&Key) -> bool) -> Map<String, Value> {
        let value = |k: &Key| (k.name.to_string(), self.value(k.name).unwrap_or(Value::Null));
        keys().iter().filter(|k| chosen(k)).map(value).collect()
    }
}

/// A value as YAML: JSON, with small numbers in scientific notation.
pub fn yaml(value: &Value) -> String {
    match value.as_f64() {
        Some(x) if value.is_f64() && x != 0.0 && x.abs() < 1e-2 => {
            let text = format!("{x:e}");
            // YAML 1.1 needs the point
            if text.contains('.') { text } else { text.replace('e', ".0e") }
        }
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{OptimKind, Resume, SamplePrompts, Strategy, marked};
    use loram_core::TargetModules;
    use serde_json::json;

    fn layer(origin: Origin, value: Value) -> Layer {
        Layer::new(origin, value.as_object().unwrap().clone())
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
        assert_eq!((c.r, c.seed, c.learning_rate), (16, 9, 2e-4.into()));
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
    fn all_unknown_keys_are_named_with_what_they_are_here() {
        let e = fails("base_model: m\nmicro_batch_size: 2\nbf16: true\nlerning_rate: 1e-4\nxyzzy: 1");
        for words in [
            "unknown keys: ",
            "`base_model` (from program; a key of axolotl; here `model_name_or_path`)",
            "`micro_batch_size` (from program; a key of axolotl; here `per_device_train_batch_size`)",
            "`bf16` (from program; a key of TRL or transformers; remove it:",
            "`lerning_rate` (from program; did you mean `learning_rate`?)",
            "`xyzzy` (from program); `loram train --help-keys`",
        ] {
            assert!(e.contains(words), "{words} is not in {e}");
        }
    }

    #[test]
    fn a_file_is_named_with_the_line() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("a.yaml");
        let fails = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Layer::from_file(&path).and_then(|l| TrainConfig::resolve(&[l])).unwrap_err().to_string()
        };
        assert!(fails("model: m\ndata: d\n\nr: eight\n").contains("a.yaml:4), expected a whole number"));
        assert!(fails("model: m\nlerning_rate: 1\n").contains("a.yaml:2); did you mean `learning_rate`?"));
        assert!(
            fails("model: m\nr: 1\nmodel: n\n").contains("a.yaml: the key `model` is given twice, in lines 1 and 3")
        );
        assert!(fails("lr: 1\nlearning_rate: 1\n").contains("a.yaml:2"), "the second one");
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
        assert_eq!((c.optim, c.task), (OptimKind::AdamW, crate::objective::find("causal_lm")));
    }

    #[test]
    fn a_resumed_run_keeps_what_decides_its_result() {
        let c = TrainConfig::default();
        let fixed = c.fixed_keys("cpu", "float32");
        let may_change = |name: &str| !fixed.contains_key(name);
        for name in ["learning_rate", "seed", "r", "per_device_train_batch_size", "gain", "target_modules", "packing"] {
            assert!(!may_change(name), "{name}");
        }
        for name in ["output_dir", "logging_steps", "eval_steps", "save_total_limit", "gradient_checkpointing"] {
            assert!(may_change(name), "{name}");
        }
        assert!(fixed["device"] == "cpu" && fixed["compute_dtype"] == "float32", "not auto");
    }

    #[test]
    fn every_default_reads_back() {
        let mut c = TrainConfig::default();
        for k in keys() {
            assert!(!k.help.is_empty() && !k.expected.is_empty(), "{}", k.name);
            c.put(k.name, &k.default).unwrap_or_else(|e| panic!("{}: default {} is not {e}", k.name, k.default));
        }
        assert_eq!(c, TrainConfig::default());
    }

    #[test]
    fn a_configuration_with_an_adapter_reads_back() {
        let text = "model: m\ndata: d\nadapter: a\nlearning_rate: 1e-3";
        let c = TrainConfig::from_yaml(text).unwrap();
        let again = TrainConfig::from_yaml(&c.to_yaml()).unwrap();
        assert_eq!(TrainConfig { origins: c.origins.clone(), ..again }, c);
        for key in marked(Mark::InAdapter) {
            let mut given = c.clone();
            given.origins.insert(key.name, Origin::Flag);
            let e = given.check().unwrap_err().to_string();
            assert!(e.contains(key.name) && e.contains("`a` brings its own"), "{e}");
        }
    }
}
