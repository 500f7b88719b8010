//! Options of schemes: what a scheme says of each of its own, and the values that a configuration gives.

use crate::first_step::FirstStep;
use crate::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;

/// An option that a scheme takes. It is a key of configurations and of recipes, and its texts are those of the
/// documentation.
#[derive(Clone, Copy)]
pub struct OptionInfo {
    /// Name in a configuration.
    pub key: &'static str,
    /// Its meaning in one sentence.
    pub help: &'static str,
    /// The values it takes: "a number of at least 1".
    pub expected: &'static str,
    /// The default, as a configuration would write it.
    pub default: &'static str,
    /// The value in its canonical form, which is the one in files; `None` for a value that the option does not take.
    /// Text that reads as a number is a number: command lines have no types.
    pub read: fn(&Value) -> Option<Value>,
}

impl OptionInfo {
    /// The canonical form of a value; null is the default. The error says what is expected.
    pub fn parse(&self, value: &Value) -> Result<Value> {
        match value {
            Value::Null => Ok(self.default_value()),
            value => (self.read)(value)
                .ok_or_else(|| Error::setting(self.key, format!("found {value}, expected {}", self.expected))),
        }
    }

    /// The default in its canonical form.
    pub fn default_value(&self) -> Value {
        let text = Value::from(self.default);
        (self.read)(&text).unwrap_or(text)
    }
}

impl std::fmt::Debug for OptionInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.expected, self.help)
    }
}

/// Reads a finite number that is `allowed`.
pub fn number(value: &Value, allowed: impl Fn(f64) -> bool) -> Option<Value> {
    let x = match value {
        Value::String(text) => text.parse().ok()?,
        value => value.as_f64()?,
    };
    (f64::is_finite(x) && allowed(x)).then(|| x.into())
}

/// Reads a whole number that is `allowed`.
pub fn whole(value: &Value, allowed: impl Fn(u64) -> bool) -> Option<Value> {
    let x = match value {
        Value::String(text) => text.parse().ok()?,
        // 2.0 is 2
        value => {
            value.as_u64().or_else(|| value.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64))?
        }
    };
    allowed(x).then(|| x.into())
}

/// Reads whatever `T` reads, where `_` is as good as `-`: names of an enum, for example.
pub fn named<T: Serialize + DeserializeOwned>(value: &Value) -> Option<Value> {
    let value = match value {
        Value::String(text) => text.trim().replace('_', "-").into(),
        value => value.clone(),
    };
    serde_json::to_value(serde_json::from_value::<T>(value).ok()?).ok()
}

/// The settings of an initialisation beside the scheme's name.
#[derive(Debug, Clone, PartialEq)]
pub struct SchemeOptions {
    /// Options of the scheme by key. A value that is not here is the default.
    pub values: BTreeMap<String, Value>,
    /// The run's first step, for schemes that follow it ([`Behaviour::first_step`](super::Behaviour)).
    pub first_step: Option<FirstStep>,
    /// Multiple of the scheme's A₀, for every scheme.
    pub init_scale_a: f64,
    /// Multiple of the scheme's B₀, for every scheme.
    pub init_scale_b: f64,
}

impl Default for SchemeOptions {
    fn default() -> SchemeOptions {
        SchemeOptions { values: BTreeMap::new(), first_step: None, init_scale_a: 1.0, init_scale_b: 1.0 }
    }
}

impl SchemeOptions {
    /// The same with one option of the scheme set.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> SchemeOptions {
        self.values.insert(key.into(), value.into());
        self
    }

    /// The value of an option, or its default. Errors: a value that the option does not take, or one that is no `T` in
    /// its canonical form.
    pub fn get<T: DeserializeOwned>(&self, option: &OptionInfo) -> Result<T> {
        let value = option.parse(self.values.get(option.key).unwrap_or(&Value::Null))?;
        let wrong = |e| Error::setting(option.key, format!("the scheme cannot read its own option {value}: {e}"));
        T::deserialize(&value).map_err(wrong)
    }

    /// Checks the scales of both factors.
    pub(super) fn check_scales(&self) -> Result<()> {
        for (key, scale) in [("init_scale_a", self.init_scale_a), ("init_scale_b", self.init_scale_b)] {
            if !(scale.is_finite() && scale > 0.0) {
                return Err(Error::setting(key, format!("found {scale}, expected a number above 0")));
            }
        }
        Ok(())
    }
}
