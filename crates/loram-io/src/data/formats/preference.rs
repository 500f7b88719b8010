//! Preferences: `chosen` and `rejected`, with their `prompt` or with one that both begin with; texts or lists of turns.

use super::turns::{context, messages};
use crate::Result;
use crate::chat::{Chat, Message};
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Record, Text};
use serde_json::{Map, Value};

/// Two answers to a prompt, one of which is preferred (`preference`), in the forms of TRL.
#[derive(Debug)]
pub struct Preference;

impl DataFormat for Preference {
    fn name(&self) -> &'static str {
        "preference"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["chosen", "rejected"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        let answer = |key| has(fields, key) && !matches!(fields[key], Value::Number(_) | Value::Bool(_));
        answer("chosen") && answer("rejected")
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let [chosen, rejected] = ["chosen", "rejected"].map(|key| fields.get(key).ok_or_else(|| fields.missing(key)));
        let (chosen, rejected) = (chosen?, rejected?);
        let texts = match (fields.get("prompt").filter(|p| !p.is_null()), chosen, rejected) {
            (prompt, Value::Array(_), _) | (prompt, _, Value::Array(_)) => {
                let [c, r] = [messages(chosen, "chosen", fields)?, messages(rejected, "rejected", fields)?];
                match prompt {
                    Some(p @ Value::Array(_)) => {
                        let prompt = messages(p, "prompt", fields)?;
                        let chat = |answer| chat([prompt.clone(), answer].concat(), prompt.len(), fields);
                        [chat(c)?, chat(r)?]
                    }
                    // a prompt that is a text stands in both lists as well
                    _ => {
                        let shared = common_turns(&c, &r);
                        [chat(c, shared, fields)?, chat(r, shared, fields)?]
                    }
                }
            }
            (prompt, ..) => {
                let [c, r] = [fields.text("chosen")?, fields.text("rejected")?];
                let (prompt, c, r) = match prompt {
                    Some(_) => (fields.text("prompt")?, c, r),
                    None => {
                        let at = common_text(&c, &r);
                        (c[..at].to_string(), c[at..].to_string(), r[at..].to_string())
                    }
                };
                [c, r].map(|completion| Text::PromptCompletion { prompt: prompt.clone(), completion })
            }
        };
        Ok(Record::compared(fields.at(), texts.into()))
    }
}

fn chat(messages: Vec<Message>, counted_from: usize, fields: &Fields<'_>) -> Result<Text> {
    Ok(Text::Chat(Chat { messages, context: context(fields)?, counted_from }))
}

/// The number of turns that both lists begin with; at least one turn of each is an answer, as in TRL's `extract_prompt`.
fn common_turns(chosen: &[Message], rejected: &[Message]) -> usize {
    let equal = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
    equal.min(chosen.len().min(rejected.len()).saturating_sub(1))
}

/// The bytes of the prompt that both texts begin with, as TRL's `extract_prompt` finds it: a space before the first difference
/// belongs to the answers, and so does the last character where one text is the beginning of the other.
fn common_text(chosen: &str, rejected: &str) -> usize {
    let mut pairs = chosen.char_indices().zip(rejected.chars());
    match pairs.find(|((_, a), b)| a != b) {
        Some(((at, _), _)) => at - usize::from(chosen[..at].ends_with(' ')),
        None => {
            let shorter = if chosen.len() <= rejected.len() { chosen } else { rejected };
            shorter.char_indices().next_back().map_or(0, |(at, _)| at)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of TRL 1.16's `extract_prompt`.
    #[test]
    fn the_shared_beginning_is_the_prompt() {
        for (chosen, rejected, prompt) in [
            ("The sky is blue.", "The sky is green.", "The sky is"),
            ("ab", "ac", "a"),
            ("x", "y", ""),
            ("abc", "abcd", "ab"),
            ("naïve é", "naïve è", "naïve"),
        ] {
            assert_eq!(&chosen[..common_text(chosen, rejected)], prompt, "{chosen} {rejected}");
        }
        let turns = |texts: &[&str]| texts.iter().map(|t| Message::new("user", t)).collect::<Vec<_>>();
        assert_eq!(common_turns(&turns(&["a", "b", "c"]), &turns(&["a", "b", "d"])), 2);
        assert_eq!(common_turns(&turns(&["a", "b"]), &turns(&["a", "b"])), 1);
        assert_eq!(common_turns(&turns(&["a"]), &turns(&["b"])), 0);
    }
}
