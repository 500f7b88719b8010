//! Lists, maps and sets of modules.

use super::key_type::{FlagForm, KeyType, text};
use loram_core::{OneOrMany, TargetModules, TokenIndices};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A list; a text, split at its commas, is a list too.
impl KeyType for Vec<String> {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "a list of texts".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "array", "items": String::schema() }, { "type": ["string", "null"] }] })
    }
    fn read(value: &Value) -> Option<Vec<String>> {
        match value {
            Value::Null => Some(Vec::new()),
            Value::Array(list) => list.iter().map(text).collect(),
            other => {
                Some(text(other)?.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_string).collect())
            }
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

/// A list of numbers; a text is split at its commas.
impl KeyType for Vec<f64> {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "a list of numbers".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "array", "items": f64::schema() }, { "type": ["number", "string", "null"] }] })
    }
    fn read(value: &Value) -> Option<Vec<f64>> {
        match value {
            Value::Null => Some(Vec::new()),
            Value::Array(list) => list.iter().map(f64::read).collect(),
            Value::Number(_) => Some(vec![f64::read(value)?]),
            other => Vec::<String>::read(other)?.into_iter().map(|t| t.parse().ok()).collect(),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

macro_rules! map_type {
    ($value:ty, $expected:literal) => {
        impl KeyType for BTreeMap<String, $value> {
            const PLACEHOLDER: &'static str = "{KEY: VALUE}";
            fn expected() -> String {
                $expected.into()
            }
            fn schema() -> Value {
                json!({ "type": ["object", "null"], "additionalProperties": <$value as KeyType>::schema() })
            }
            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::Null => Some(BTreeMap::new()),
                    Value::Object(map) => {
                        map.iter().map(|(k, v)| Some((k.clone(), <$value as KeyType>::read(v)?))).collect()
                    }
                    _ => None,
                }
            }
            fn write(&self) -> Value {
                Value::Object(self.iter().map(|(k, v)| (k.clone(), v.write())).collect::<Map<_, _>>())
            }
        }
    };
}
map_type!(usize, "a map from module pattern to whole number");
map_type!(f64, "a map from module pattern to number");
map_type!(String, "a map from name to name");

/// Values of any kind by name.
impl KeyType for Map<String, Value> {
    const PLACEHOLDER: &'static str = "{KEY: VALUE}";
    fn expected() -> String {
        "a map from name to value".into()
    }
    fn schema() -> Value {
        json!({ "type": ["object", "null"] })
    }
    fn read(value: &Value) -> Option<Map<String, Value>> {
        match value {
            Value::Null => Some(Map::new()),
            Value::Object(map) => Some(map.clone()),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        Value::Object(self.clone())
    }
}

/// Module names; `all-linear` must stand alone.
fn named_targets(names: Vec<String>) -> Option<TargetModules> {
    match names.iter().any(|n| n.eq_ignore_ascii_case("all-linear")) {
        true => (names.len() == 1).then_some(TargetModules::AllLinear),
        false => (!names.is_empty()).then_some(TargetModules::Names(names)),
    }
}

impl KeyType for TargetModules {
    const FORM: FlagForm = FlagForm::List;
    const PLACEHOLDER: &'static str = "NAMES|REGEX";
    fn expected() -> String {
        "\"all-linear\", a list of module names, or a regular expression".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "minItems": 1 }] })
    }
    fn read(value: &Value) -> Option<TargetModules> {
        match value {
            Value::Array(list) => named_targets(list.iter().map(text).collect::<Option<_>>()?),
            Value::String(s) if s.eq_ignore_ascii_case("all-linear") => Some(TargetModules::AllLinear),
            // PEFT reads every other string as an expression that must match a whole path, which a bare name never does
            Value::String(s) if s.contains(['^', '$', '*', '+', '?', '(', '[', '{', '|', '\\']) => {
                Some(TargetModules::Regex(s.clone()))
            }
            Value::String(s) => {
                named_targets(s.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_string).collect())
            }
            _ => None,
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for OneOrMany<usize> {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "a block number or a list of them".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [usize::schema(), { "type": "array", "items": usize::schema() }] })
    }
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(list) => Some(OneOrMany::Many(list.iter().map(usize::read).collect::<Option<_>>()?)),
            Value::String(s) if s.contains(',') => {
                let list = s.split(',').map(|t| t.trim().parse().ok());
                Some(OneOrMany::Many(list.collect::<Option<_>>()?))
            }
            other => usize::read(other).map(OneOrMany::One),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for TokenIndices {
    const FORM: FlagForm = FlagForm::List;
    const PLACEHOLDER: &'static str = "TOKENS|{MODULE: TOKENS}";
    fn expected() -> String {
        "a list of token numbers, or a map from module to such a list".into()
    }
    fn schema() -> Value {
        let list = json!({ "anyOf": [usize::schema(), { "type": "array", "items": usize::schema() }] });
        json!({ "anyOf": [list, { "type": "object", "additionalProperties": list }] })
    }
    fn read(value: &Value) -> Option<Self> {
        let id = |value: &Value| u32::try_from(usize::read(value)?).ok();
        let list = |value: &Value| match value {
            Value::Array(list) => list.iter().map(id).collect::<Option<Vec<u32>>>(),
            Value::String(s) => s.split(',').map(|t| t.trim().parse().ok()).collect(),
            other => Some(vec![id(other)?]),
        };
        match value {
            Value::Object(map) => {
                let map = map.iter().map(|(name, ids)| Some((name.clone(), list(ids)?)));
                Some(TokenIndices::Modules(map.collect::<Option<_>>()?))
            }
            other => list(other).map(TokenIndices::Embedding),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for OneOrMany<String> {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "a name or a list of names".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), { "type": "array", "items": String::schema() }] })
    }
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(list) => Some(OneOrMany::Many(list.iter().map(text).collect::<Option<_>>()?)),
            other => text(other).map(OneOrMany::One),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}
