//! Prompts with completions: `prompt` and `completion`, texts or lists of turns.

use super::turns::{context, messages};
use crate::Result;
use crate::chat::Chat;
use crate::data::fields::Fields;
use crate::data::format::DataFormat;
use crate::data::record::{Record, Text};
use serde_json::Value;

/// A prompt and the completion to learn (`prompt_completion`).
#[derive(Debug)]
pub struct PromptCompletion;

impl DataFormat for PromptCompletion {
    fn name(&self) -> &'static str {
        "prompt_completion"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["prompt", "completion"]
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let text = match (fields.get("prompt"), fields.get("completion")) {
            (Some(p @ Value::Array(_)), Some(c @ Value::Array(_))) => {
                let mut all = messages(p, "prompt", fields)?;
                let counted_from = all.len();
                all.extend(messages(c, "completion", fields)?);
                Text::Chat(Chat { messages: all, context: context(fields)?, counted_from })
            }
            _ => Text::PromptCompletion { prompt: fields.text("prompt")?, completion: fields.text("completion")? },
        };
        Ok(Record::new(fields.at(), text))
    }
}
