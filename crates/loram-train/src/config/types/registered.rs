//! Keys whose value is the name of something registered: an objective, a data format.

use super::key_type::{KeyType, text};
use crate::objective::{Objective, find, objectives};
use loram_io::data::{DataFormat, find_format, formats};
use serde_json::{Value, json};

impl KeyType for &'static dyn Objective {
    const PLACEHOLDER: &'static str = "CHOICE";
    fn expected() -> String {
        let names: Vec<&str> = objectives().iter().map(|o| o.name()).collect();
        format!("one of {}", names.join(", "))
    }
    fn schema() -> Value {
        json!({ "enum": objectives().iter().map(|o| o.name()).collect::<Vec<_>>() })
    }
    fn read(value: &Value) -> Option<&'static dyn Objective> {
        find(&name(value)?)
    }
    fn write(&self) -> Value {
        json!(self.name())
    }
}

impl KeyType for &'static dyn DataFormat {
    const PLACEHOLDER: &'static str = "CHOICE";
    fn expected() -> String {
        let names: Vec<&str> = formats().iter().map(|f| f.name()).collect();
        format!("one of {}", names.join(", "))
    }
    fn schema() -> Value {
        json!({ "enum": formats().iter().map(|f| f.name()).collect::<Vec<_>>() })
    }
    fn read(value: &Value) -> Option<&'static dyn DataFormat> {
        find_format(&name(value)?)
    }
    fn write(&self) -> Value {
        json!(self.name())
    }
}

/// A name, in any case and with `-` for `_`.
fn name(value: &Value) -> Option<String> {
    Some(text(value)?.to_ascii_lowercase().replace('-', "_"))
}
