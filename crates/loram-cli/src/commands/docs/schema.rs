//! The JSON Schema of a configuration, which editors complete and check keys by.

use loram_train::config::{Mark, keys};
use serde_json::{Map, Value, json};

/// `docs/configuration.schema.json`.
pub fn schema() -> Value {
    let mut properties = Map::new();
    for key in keys() {
        let mut of = json!({ "description": format!("{} Values: {}.", key.help, key.expected) });
        let wide = match key.is(Mark::MinusOne) {
            true => json!({ "anyOf": [key.schema, { "const": -1 }] }),
            false => key.schema.clone(),
        };
        if let (Value::Object(of), Value::Object(types)) = (&mut of, wide) {
            of.extend(types);
            of.insert("default".into(), key.default.clone());
        }
        for name in key.names() {
            properties.insert(name.into(), of.clone());
        }
    }
    json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Configuration of loram train",
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    })
}
