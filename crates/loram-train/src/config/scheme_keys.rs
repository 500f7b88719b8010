//! Options of schemes as keys: a scheme describes its own options, so that they have no rows in the table.

use super::key::{Key, Mark};
use super::types::FlagForm;
use loram_core::{OptionInfo, scheme_option, scheme_options};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Options that are given, by key.
pub type Options = BTreeMap<&'static str, Value>;

/// The keys of all schemes' options, in the order of the registry.
pub fn scheme_keys() -> impl Iterator<Item = Key> {
    scheme_options().map(|option| Key {
        name: option.key,
        aliases: &[],
        section: "Adapter",
        expected: expected(option),
        schema: schema(option),
        default: Value::Null,
        help: format!("{}; null: {}.", option.help, option.default),
        form: FlagForm::Value,
        placeholder: placeholder(&option.default_value()),
        marks: &[Mark::Init, Mark::Plan, Mark::Info],
    })
}

/// The value of an option in the form in which it is kept; the value itself of another key.
pub fn canonical(key: &str, value: &Value) -> Value {
    scheme_option(key).and_then(|option| (option.read)(value)).unwrap_or_else(|| value.clone())
}

/// An option says in words what it takes: a number and a few names, or both.
fn schema(option: &OptionInfo) -> Value {
    match option.default_value() {
        Value::Number(_) => json!({ "type": ["number", "string", "null"] }),
        Value::Bool(_) => json!({ "type": ["boolean", "null"] }),
        _ => json!({ "type": ["string", "number", "null"] }),
    }
}

fn expected(option: &OptionInfo) -> String {
    format!("{}, or null", option.expected)
}

fn placeholder(default: &Value) -> &'static str {
    match default {
        Value::Number(n) if n.is_f64() => "X",
        Value::Number(_) => "N",
        _ => "VALUE",
    }
}

/// Sets an option among those that are given; null is the scheme's default. The error says what is expected.
pub fn put_option(given: &mut Options, option: &OptionInfo, value: &Value) -> Result<(), String> {
    let unset = value.is_null() || matches!(value.as_str(), Some("" | "null" | "none"));
    match (option.read)(value) {
        Some(read) => given.insert(option.key, read),
        None if unset => given.remove(option.key),
        None => return Err(expected(option)),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{TrainConfig, key};

    #[test]
    fn options_of_schemes_are_keys() {
        let rho = key("rho").unwrap();
        assert_eq!((rho.placeholder, rho.default.clone(), rho.is(Mark::Init)), ("X", Value::Null, true));
        let mut c = TrainConfig::default();
        c.set("basis", "random_orthogonal").unwrap();
        c.set("gain", "0.5").unwrap();
        c.set("loftq_iter", "2").unwrap();
        assert_eq!(c.get("basis"), Some(json!("random-orthogonal")));
        assert_eq!(
            (c.get("gain"), c.get("loftq_iter"), c.get("rho")),
            (Some(json!(0.5)), Some(json!(2)), Some(json!(null)))
        );
        assert_eq!(canonical("gain", &json!("0.5")), json!(0.5));
        c.set("gain", "null").unwrap();
        assert_eq!(c.get("gain"), Some(Value::Null));
        let e = c.set("rho", 0.5).unwrap_err().to_string();
        assert!(e.contains("rho: found 0.5") && e.contains("a number of at least 1, or null"), "{e}");
    }
}
