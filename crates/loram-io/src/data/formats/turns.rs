//! Lists of turns and the other variables of a chat template, as records hold them.

use crate::Result;
use crate::chat::Message;
use crate::data::fields::{Fields, kind};
use serde_json::{Map, Value};

/// Variables that a record gives to the chat template, in the columns of TRL: `tools` and `documents`, lists or JSON texts of
/// lists, and the entries of `chat_template_kwargs`.
pub(super) fn context(fields: &Fields<'_>) -> Result<Map<String, Value>> {
    let mut out = Map::new();
    for key in ["tools", "documents"] {
        let Some(value) = fields.get(key).filter(|v| !v.is_null()) else { continue };
        let parsed = match value {
            Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
            other => other.clone(),
        };
        if !parsed.is_array() {
            return Err(fields.unexpected(key, "a list or its JSON text", value));
        }
        out.insert(key.into(), parsed);
    }
    match fields.get("chat_template_kwargs") {
        None | Some(Value::Null) => {}
        Some(Value::Object(map)) => out.extend(map.iter().map(|(k, v)| (k.clone(), v.clone()))),
        Some(other) => return Err(fields.unexpected("chat_template_kwargs", "an object", other)),
    }
    Ok(out)
}

/// A list of turns, as OpenAI (`role`, `content`) or ShareGPT (`from`, `value`) writes them.
pub(super) fn messages(v: &Value, key: &str, fields: &Fields<'_>) -> Result<Vec<Message>> {
    let bad = |what: String| fields.error(format!("field `{key}`: {what}"));
    let list = v.as_array().ok_or_else(|| fields.unexpected(key, "a list of turns", v))?;
    if list.is_empty() {
        return Err(bad("the list of turns is empty".into()));
    }
    list.iter()
        .enumerate()
        .map(|(i, turn)| {
            let role = turn.get("role").or(turn.get("from")).and_then(Value::as_str);
            let role = role.ok_or_else(|| bad(format!("turn {}: no `role`", i + 1)))?;
            let role = match role {
                "human" => "user",
                "gpt" | "model" => "assistant",
                other => other,
            };
            let content = turn.get("content").or(turn.get("value")).cloned().unwrap_or(Value::Null);
            if !matches!(content, Value::String(_) | Value::Null | Value::Array(_)) {
                let what = format!(
                    "turn {}: expected `content` to be a text or a list of parts, found {}",
                    i + 1,
                    kind(&content)
                );
                return Err(bad(what));
            }
            let known = ["role", "from", "content", "value"];
            let rest = turn.as_object().into_iter().flatten().filter(|(k, _)| !known.contains(&k.as_str()));
            let content = if content.is_null() { Value::String(String::new()) } else { content };
            Ok(Message { role: role.into(), content, rest: rest.map(|(k, v)| (k.clone(), v.clone())).collect() })
        })
        .collect()
}
