//! Booleans, numbers, text and paths, and any of them or null.

use super::key_type::{FlagForm, KeyType, text};
use serde_json::{Value, json};
use std::path::PathBuf;

impl KeyType for bool {
    const FORM: FlagForm = FlagForm::Switch;
    const PLACEHOLDER: &'static str = "BOOL";
    fn expected() -> String {
        "true or false".into()
    }
    fn schema() -> Value {
        json!({ "type": "boolean" })
    }
    fn read(value: &Value) -> Option<bool> {
        match value {
            Value::Bool(b) => Some(*b),
            Value::String(s) => match s.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

/// A number without fraction, also from text such as `10_000`.
fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| {
            let x = n.as_f64()?;
            (x >= 0.0 && x.fract() == 0.0 && x < 9e15).then_some(x as u64)
        }),
        Value::String(s) => s.replace('_', "").parse().ok(),
        _ => None,
    }
}

impl KeyType for usize {
    const PLACEHOLDER: &'static str = "N";
    fn expected() -> String {
        "a whole number, 0 or more".into()
    }
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }
    fn read(value: &Value) -> Option<usize> {
        whole(value)?.try_into().ok()
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for u64 {
    const PLACEHOLDER: &'static str = "N";
    fn expected() -> String {
        "a whole number, 0 or more".into()
    }
    fn schema() -> Value {
        json!({ "type": "integer", "minimum": 0 })
    }
    fn read(value: &Value) -> Option<u64> {
        whole(value)
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for f64 {
    const PLACEHOLDER: &'static str = "X";
    fn expected() -> String {
        "a number".into()
    }
    fn schema() -> Value {
        json!({ "type": "number" })
    }
    fn read(value: &Value) -> Option<f64> {
        match value {
            Value::Number(n) => n.as_f64(),
            // YAML 1.1 reads `2e-5` as text
            Value::String(s) => s.parse().ok(),
            _ => None,
        }
        .filter(|x: &f64| x.is_finite())
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for String {
    fn expected() -> String {
        "text".into()
    }
    fn schema() -> Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
    fn read(value: &Value) -> Option<String> {
        text(value)
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for PathBuf {
    const PLACEHOLDER: &'static str = "DIR";
    fn expected() -> String {
        "a path".into()
    }
    fn schema() -> Value {
        json!({ "type": "string", "minLength": 1 })
    }
    fn read(value: &Value) -> Option<PathBuf> {
        text(value).filter(|t| !t.is_empty()).map(PathBuf::from)
    }
    fn write(&self) -> Value {
        json!(self.to_string_lossy())
    }
}

impl<T: KeyType> KeyType for Option<T> {
    const FORM: FlagForm = T::FORM;
    const PLACEHOLDER: &'static str = T::PLACEHOLDER;
    fn expected() -> String {
        format!("{}, or null", T::expected())
    }
    fn schema() -> Value {
        json!({ "anyOf": [T::schema(), { "type": "null" }] })
    }
    fn read(value: &Value) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            Value::String(s) if s.is_empty() || s == "null" || s == "none" => T::read(value).map(Some).or(Some(None)),
            other => T::read(other).map(Some),
        }
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }
}
