//! Messages of a chat.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The role whose text is trained on.
pub const ASSISTANT: &str = "assistant";

/// One turn of a chat. Fields beside role and content (tool calls, names) reach the template unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// The text, or a list of parts `{"type": "text", "text": …}`.
    #[serde(default)]
    pub content: Value,
    /// All other fields.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Message {
    /// A turn of text.
    pub fn new(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into(), rest: Map::new() }
    }

    /// Its text, parts of text joined; empty for other parts.
    pub fn text(&self) -> String {
        self.joined().ok().and_then(|m| m.content.as_str().map(str::to_string)).unwrap_or_default()
    }

    /// The message with a list of text parts joined to one text. Errors: a part that is not text.
    pub(super) fn joined(&self) -> Result<Message> {
        let Value::Array(parts) = &self.content else { return Ok(self.clone()) };
        let mut text = String::new();
        for part in parts {
            match (part, part.get("type").and_then(Value::as_str), part.get("text").and_then(Value::as_str)) {
                (Value::String(s), ..) => text.push_str(s),
                (_, None | Some("text"), Some(s)) => text.push_str(s),
                (_, kind, _) => {
                    return Err(Error::Usage(format!(
                        "a message of the role `{}` has a content part of type `{}`: only text parts are supported",
                        self.role,
                        kind.unwrap_or("unknown")
                    )));
                }
            }
        }
        Ok(Message { content: text.into(), ..self.clone() })
    }
}

/// A chat as a record of the data has it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chat {
    /// Its turns.
    pub messages: Vec<Message>,
    /// Variables for the template: `tools`, `documents`, and those of `chat_template_kwargs`.
    pub context: Map<String, Value>,
    /// The first message that the loss may count: those before it are a prompt.
    pub counted_from: usize,
}

impl Chat {
    /// A chat of messages alone.
    pub fn new(messages: Vec<Message>) -> Chat {
        Chat { messages, ..Chat::default() }
    }
}

/// The roles of a chat, each once, for error messages.
pub(crate) fn roles(messages: &[Message]) -> String {
    let mut list: Vec<&str> = Vec::new();
    for m in messages {
        if !list.contains(&m.role.as_str()) {
            list.push(&m.role);
        }
    }
    list.iter().map(|r| format!("`{r}`")).collect::<Vec<_>>().join(", ")
}
