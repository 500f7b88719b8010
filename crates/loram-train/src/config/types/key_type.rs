//! The trait that every type of a key implements.

use serde_json::Value;

/// A type that a configuration key can have.
pub trait KeyType: Sized {
    /// How a flag of this type takes its value.
    const FORM: FlagForm = FlagForm::Value;
    /// The value in a help text, `N` in `--r <N>`.
    const PLACEHOLDER: &'static str = "VALUE";
    /// The values that are accepted, for messages: "a whole number".
    fn expected() -> String;
    /// The JSON Schema of the values that [`KeyType::read`] accepts, for editors; a few texts of other kinds are accepted beside it.
    fn schema() -> Value;
    /// Reads a value; `None` when it has another type.
    fn read(value: &Value) -> Option<Self>;
    /// The value as it is written to `config.yaml`.
    fn write(&self) -> Value;
}

/// How a flag takes its value on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagForm {
    /// `--key value`.
    Value,
    /// `--key value`, as often as there are values; one value may hold several, separated by commas.
    List,
    /// `--key` for true, or `--key=false`.
    Switch,
    /// `--key=value`, or `--key` alone for this value.
    Optional(&'static str),
}

/// The text of a scalar. YAML reads `--set output_dir=2024` as a number.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}
