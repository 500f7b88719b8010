//! Reads a grid file.

use super::keys::{GRID_KEYS, RUN_KEYS, STEP_SIZE, unknown_keys, unknown_option};
use super::spec::{Axis, Grid, Halving, Keep, Named};
use crate::data::SplitOptions;
use crate::peft;
use crate::{Error, Result};
use loram_train::Layer;
use loram_train::config::{LearningRate, Mark, key, marked};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Rounds of successive halving: more would halve the number of steps that a 64-bit computer can count.
const MAX_ROUNDS: usize = 63;

impl Grid {
    /// Reads a grid file. Errors name the key, what was found and what was expected.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Grid> {
        let path = path.as_ref();
        let mut values = Layer::from_file(path)?.values;
        let mut reader = Reader { path, place: "the grid".into() };
        let experiments = values.remove("experiments");
        let mut schemes = match values.remove("schemes") {
            Some(v) => reader.named("schemes", v)?,
            None => Vec::new(),
        };
        let mut models = values.remove("models").map(|v| reader.models(v)).transpose()?.unwrap_or_default();
        let mut tasks = values.remove("tasks").map(|v| reader.named("tasks", v)).transpose()?.unwrap_or_default();
        let extra = values.remove("grid").map(|v| reader.map("grid", v)).transpose()?.unwrap_or_default();
        let split = values.remove("split").map(|v| reader.split(v)).transpose()?.unwrap_or_default();
        let halving = values.remove("halving").map(|v| reader.halving(v)).transpose()?.flatten();
        let keep = values.remove("keep").map(|v| reader.keep(&v)).transpose()?.unwrap_or(Keep::Adapters);
        let jobs = values.remove("jobs").map(|v| reader.number("jobs", &v, 1)).transpose()?;
        let output = values.remove("output_dir").or_else(|| values.remove("output"));
        let mut base = reader.keys(values, true)?;
        if let Some(v) = experiments {
            let Value::String(dir) = &v else { return Err(reader.wrong("experiments", &v, "a folder")) };
            let found = peft::read_experiments(Path::new(dir))?;
            schemes.extend(found.experiments.into_iter().map(|e| Named { name: e.name, keys: e.keys }));
            for (key, value) in found.base {
                base.entry(key).or_insert(value);
            }
        }
        if schemes.is_empty() {
            return Err(reader.missing("schemes", "a map from the name of each arm to the keys that it sets"));
        }
        single(&mut models, &base, "model_name_or_path", "model");
        single(&mut tasks, &base, "train_data", "task");
        if models.is_empty() {
            return Err(reader.missing("models", "a list of model folders or hub ids, or a map from name to keys"));
        }
        if tasks.is_empty() {
            return Err(
                reader.missing("tasks", "a map from the name of each task to its keys (train_data, eval_data, …)")
            );
        }
        let mut axes = Vec::new();
        for key in marked(Mark::Axis) {
            let values = match base.remove(key.name) {
                Some(Value::Array(list)) => list,
                Some(value) => vec![value],
                None if key.name == "seed" => vec![json!(0), json!(1), json!(2)],
                None => vec![key.default.clone()],
            };
            axes.push(Axis { key, values });
        }
        // learning rates vary slowest
        axes.sort_by_key(|a| a.key.name != "learning_rate");
        for (name, value) in extra {
            let known =
                key(&name).ok_or_else(|| reader.error(unknown_keys(std::slice::from_ref(&name), "`grid`", &[])))?;
            if known.is(Mark::Axis) {
                return Err(reader.error(format!("grid.{name}: give it at the top, as `{}: [..]`", known.name)));
            }
            match value {
                Value::Array(values) => axes.push(Axis { key: known, values }),
                other => return Err(reader.wrong(&format!("grid.{name}"), &other, "a list of values")),
            }
        }
        if let Some(empty) = axes.iter().find(|a| a.values.is_empty()) {
            return Err(reader.wrong(empty.key.name, &json!([]), "at least one value"));
        }
        let output_dir = match output {
            Some(Value::String(s)) if !s.is_empty() => PathBuf::from(s),
            Some(other) => return Err(reader.wrong("output_dir", &other, "a path")),
            None => PathBuf::from("runs").join(path.file_stem().unwrap_or_default()),
        };
        Ok(Grid { path: path.into(), output_dir, base, models, tasks, schemes, axes, split, halving, keep, jobs })
    }
}

/// If the file names no models or no tasks, the base configuration is the only one.
fn single(list: &mut Vec<Named>, base: &Map<String, Value>, key: &str, noun: &str) {
    if list.is_empty() && base.contains_key(key) {
        let name = match &base[key] {
            Value::String(s) => short_name(s),
            _ => noun.into(),
        };
        list.push(Named { name, keys: Map::new() });
    }
}

/// The last part of a path without its ending, or the part of a generated source before its options.
fn short_name(path: &str) -> String {
    let path = path.split('?').next().unwrap_or(path);
    let name = path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or(path);
    name.split('.').next().filter(|n| !n.is_empty()).unwrap_or(name).to_string()
}

struct Reader<'a> {
    path: &'a Path,
    /// The part of the file that is being read, for messages.
    place: String,
}

impl Reader<'_> {
    fn error(&self, what: String) -> Error {
        Error::Grid { path: self.path.into(), what }
    }

    fn wrong(&self, key: &str, found: &Value, expected: &str) -> Error {
        self.error(format!("{key}: found {found}, expected {expected}"))
    }

    fn missing(&self, key: &str, expected: &str) -> Error {
        self.error(format!("`{key}` is missing: expected {expected}"))
    }

    fn map(&self, key: &str, value: Value) -> Result<Map<String, Value>> {
        match value {
            Value::Object(map) => Ok(map),
            Value::Null => Ok(Map::new()),
            other => Err(self.wrong(key, &other, "a map")),
        }
    }

    fn number(&self, key: &str, value: &Value, least: u64) -> Result<usize> {
        match value.as_u64().filter(|&n| n >= least) {
            Some(n) => Ok(n as usize),
            None => Err(self.wrong(key, value, &format!("a whole number, {least} or more"))),
        }
    }

    fn share(&self, key: &str, value: &Value) -> Result<f64> {
        match value.as_f64().filter(|x| *x > 0.0 && *x < 1.0) {
            Some(x) => Ok(x),
            None => Err(self.wrong(key, value, "a number between 0 and 1")),
        }
    }

    /// Keys of a training configuration, by their own names.
    fn keys(&self, values: Map<String, Value>, top: bool) -> Result<Map<String, Value>> {
        let mut out = Map::new();
        let strange: Vec<String> = values
            .keys()
            .filter(|k| key(k).is_none() && !RUN_KEYS.contains(&k.as_str()) && *k != STEP_SIZE)
            .cloned()
            .collect();
        if !strange.is_empty() {
            let own: Vec<&str> = if top { [&GRID_KEYS[..], &RUN_KEYS].concat() } else { RUN_KEYS.to_vec() };
            return Err(self.error(unknown_keys(&strange, &self.place, &own)));
        }
        for (given, value) in values {
            let value = if given == STEP_SIZE { self.step_sizes(value)? } else { value };
            let given = if given == STEP_SIZE { "learning_rate".to_string() } else { given };
            let name = match key(&given) {
                Some(known) if known.is(Mark::Folder) => {
                    return Err(self.error(format!("`{given}` in {}: the comparison sets this key itself", self.place)));
                }
                Some(known) => known.name,
                None => &given,
            };
            if out.insert(name.to_string(), value).is_some() {
                return Err(self.error(format!("`{given}` in {}: the key `{name}` is given twice", self.place)));
            }
        }
        Ok(out)
    }

    /// Step sizes as learning rates: a share of the weights' norm, or a list of them.
    fn step_sizes(&self, value: Value) -> Result<Value> {
        let one = |v: &Value| match v {
            Value::String(text) => LearningRate::step_size(text),
            Value::Number(share) => LearningRate::step_size(&share.to_string()),
            _ => None,
        };
        let read = |v: &Value| match one(v) {
            Some(rate) => Ok(json!(rate)),
            None => Err(self.wrong(STEP_SIZE, v, "shares of the weights' norm from 0 to 1, such as [0.1%, 0.3%, 1%]")),
        };
        match &value {
            Value::Array(list) => list.iter().map(read).collect::<Result<Vec<Value>>>().map(Value::Array),
            one => read(one),
        }
    }

    /// A map from name to keys.
    fn named(&mut self, section: &str, value: Value) -> Result<Vec<Named>> {
        let Value::Object(map) = value else {
            return Err(self.wrong(section, &value, "a map from name to keys"));
        };
        let mut out = Vec::new();
        for (name, keys) in map {
            self.place = format!("`{section}.{name}`");
            let keys = self.map(&format!("{section}.{name}"), keys)?;
            out.push(Named { keys: self.keys(keys, false)?, name });
        }
        self.place = "the grid".into();
        Ok(out)
    }

    /// A list of folders and ids, or a map from name to folder or keys.
    fn models(&mut self, value: Value) -> Result<Vec<Named>> {
        let of = |path: &str| Map::from_iter([("model_name_or_path".to_string(), json!(path))]);
        match value {
            Value::Array(list) => list
                .iter()
                .map(|v| match v {
                    Value::String(s) => Ok(Named { name: short_name(s), keys: of(s) }),
                    other => Err(self.wrong("models", other, "model folders or hub ids")),
                })
                .collect(),
            Value::String(s) => Ok(vec![Named { name: short_name(&s), keys: of(&s) }]),
            Value::Object(map) => {
                let map = map.into_iter().map(|(name, v)| match v {
                    Value::String(s) => (name, Value::Object(of(&s))),
                    other => (name, other),
                });
                self.named("models", Value::Object(map.collect()))
            }
            other => {
                Err(self.wrong("models", &other, "a list of model folders or hub ids, or a map from name to keys"))
            }
        }
    }

    fn split(&self, value: Value) -> Result<SplitOptions> {
        const KEYS: [&str; 6] = ["selection", "holdout", "seed", "train_samples", "selection_samples", "test_samples"];
        let mut out = SplitOptions::default();
        for (key, value) in self.map("split", value)? {
            let name = format!("split.{key}");
            match key.as_str() {
                "selection" => out.selection = self.share(&name, &value)?,
                "holdout" => out.holdout = self.share(&name, &value)?,
                "seed" => out.seed = self.number(&name, &value, 0)? as u64,
                "train_samples" => out.train_samples = Some(self.number(&name, &value, 1)?),
                "selection_samples" => out.selection_samples = Some(self.number(&name, &value, 1)?),
                "test_samples" => out.test_samples = Some(self.number(&name, &value, 1)?),
                _ => return Err(self.error(unknown_option(&key, "`split`", &KEYS))),
            }
        }
        Ok(out)
    }

    fn halving(&self, value: Value) -> Result<Option<Halving>> {
        let mut out = Halving { factor: 2, rounds: 1, keep_auto: false };
        match value {
            Value::Bool(on) => return Ok(on.then_some(out)),
            Value::Object(map) => {
                for (key, value) in map {
                    let name = format!("halving.{key}");
                    match key.as_str() {
                        "factor" => out.factor = self.number(&name, &value, 2)?,
                        "rounds" => out.rounds = self.number(&name, &value, 1)?.min(MAX_ROUNDS + 1),
                        "keep_auto" => {
                            let on = value.as_bool();
                            out.keep_auto = on.ok_or_else(|| self.wrong(&name, &value, "true or false"))?;
                        }
                        _ => {
                            return Err(self.error(unknown_option(
                                &key,
                                "`halving`",
                                &["factor", "rounds", "keep_auto"],
                            )));
                        }
                    }
                }
            }
            other => {
                return Err(self.wrong("halving", &other, "true, false, or a map with factor, rounds and keep_auto"));
            }
        }
        if out.rounds > MAX_ROUNDS {
            return Err(self.error(format!("halving.rounds: expected at most {MAX_ROUNDS}")));
        }
        Ok(Some(out))
    }

    fn keep(&self, value: &Value) -> Result<Keep> {
        match value.as_str() {
            Some("adapters") => Ok(Keep::Adapters),
            Some("everything") => Ok(Keep::Everything),
            Some("figures") => Ok(Keep::Figures),
            _ => Err(self.wrong("keep", value, "one of adapters, everything, figures")),
        }
    }
}
