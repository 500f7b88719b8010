//! The key `task`: an objective by name.

use super::key_type::{KeyType, text};
use crate::objective::{Objective, find, objectives};
use serde_json::{Value, json};

impl KeyType for &'static dyn Objective {
    const PLACEHOLDER: &'static str = "CHOICE";
    fn expected() -> String {
        let names: Vec<&str> = objectives().iter().map(|o| o.name()).collect();
        format!("one of {}", names.join(", "))
    }
    fn read(value: &Value) -> Option<&'static dyn Objective> {
        find(&text(value)?.to_ascii_lowercase().replace('-', "_"))
    }
    fn write(&self) -> Value {
        json!(self.name())
    }
}
