//! Chats: `messages`, or ShareGPT's `conversations`.

use super::turns::{context, messages};
use crate::Result;
use crate::chat::Chat;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Record, Text};
use serde_json::{Map, Value};

/// Chats, of which the assistant's turns count (`messages`).
#[derive(Debug)]
pub struct Messages;

/// The two names of the list of turns.
const KEYS: [&str; 2] = ["messages", "conversations"];

impl DataFormat for Messages {
    fn name(&self) -> &'static str {
        "messages"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["messages"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        KEYS.iter().any(|k| has(fields, k))
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let found = KEYS.iter().find_map(|key| Some((*key, fields.get(key)?)));
        let (key, list) = found.ok_or_else(|| fields.missing("messages"))?;
        let chat = Chat::new(messages(list, key, fields)?);
        Ok(Record::new(fields.at(), Text::Chat(Chat { context: context(fields)?, ..chat })))
    }
}
