//! Records that a model is asked about: what stands before its answer, and the answer where the data have one.

use super::fields::{Fields, has, names};
use super::format::DataFormat;
use super::formats::{Alpaca, Messages, PromptCompletion};
use super::read::{DataSpec, renamed};
use super::record::{Record, Text};
use super::sources::{RawRecord, expand, raw_records};
use crate::chat::Chat;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// The answers that a model gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A text behind the prompt.
    Text,
    /// Of a head for whole texts.
    Label,
    /// Of a head for words.
    Tags,
}

/// A record without what a model is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Its place, `file:line` or `file: record n`.
    pub at: String,
    /// The fields of the record as they stand in the file.
    pub fields: Map<String, Value>,
    /// The prompt, with an empty completion; the turns before the answer; or the text of a head.
    pub text: Text,
    /// The answer in the data, for [`Answer::Text`].
    pub reference: Option<String>,
}

/// Reads records without the fields that the model is asked for, which may be there or not.
///
/// # Errors
/// As [`super::load_records`]; and text files, which have no records.
pub fn load_inputs(spec: &DataSpec, answer: Answer) -> Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for path in &expand(&spec.paths)? {
        for (at, raw) in raw_records(path)? {
            let RawRecord::Object(value) = raw else {
                let what = "a text file has no records: expected .jsonl, .csv, .parquet or the like, one record for each answer";
                return Err(Error::Data { at: path.clone(), what: what.into() });
            };
            let original = value.as_object().cloned();
            let fields = renamed(spec, &at, value)?;
            let (text, reference) = match answer {
                Answer::Text => prompt(&fields, &at)?,
                Answer::Label => (labelled(&fields, &at)?, None),
                Answer::Tags => (words(&fields, &at)?, None),
            };
            inputs.push(Input { at, fields: original.unwrap_or_default(), text, reference });
        }
    }
    if inputs.is_empty() {
        return Err(Error::Data { at: spec.paths.join(", "), what: "no records: the data set is empty".into() });
    }
    Ok(inputs)
}

/// The fields with an empty text in place of an answer that is missing.
fn with_answer(fields: &Map<String, Value>, answer: &str) -> Map<String, Value> {
    let mut fields = fields.clone();
    if !has(&fields, answer) {
        fields.insert(answer.into(), Value::String(String::new()));
    }
    fields
}

fn prompt(fields: &Map<String, Value>, at: &str) -> Result<(Text, Option<String>)> {
    let read = |format: &dyn DataFormat, fields: &Map<String, Value>| {
        format.read(&Fields::new(fields, at, format.name(), format.columns()))
    };
    let record = if Messages.recognises(fields) {
        read(&Messages, fields)?
    } else if fields.get("prompt").is_some_and(Value::is_array) {
        // the turns of the prompt, without those of the completion
        let mut turns = Map::new();
        turns.extend(fields.iter().filter(|(k, _)| *k != "prompt").map(|(k, v)| (k.clone(), v.clone())));
        turns.insert("messages".into(), fields["prompt"].clone());
        let record = read(&Messages, &turns)?;
        let answer = fields.get("completion").and_then(|c| c.as_array()?.last()?.get("content")?.as_str());
        return split(record, answer.map(str::to_string));
    } else if has(fields, "prompt") {
        read(&PromptCompletion, &with_answer(fields, "completion"))?
    } else if has(fields, "instruction") {
        read(&Alpaca, &with_answer(fields, "output"))?
    } else if let Some(Value::String(text)) = fields.get("text") {
        return Ok((Text::PromptCompletion { prompt: text.clone(), completion: String::new() }, None));
    } else {
        let what = format!(
            "no prompt in the fields {}; expected `prompt`, `messages`, `instruction` or `text` (--columns '{{prompt: NAME}}' renames one)",
            names(fields)
        );
        return Err(Error::Data { at: at.into(), what });
    };
    split(record, None)
}

/// Takes the answer off a record.
fn split(record: Record, reference: Option<String>) -> Result<(Text, Option<String>)> {
    match record.texts.into_iter().next() {
        Some(Text::PromptCompletion { prompt, completion }) => {
            let reference = Some(completion).filter(|c| !c.is_empty());
            Ok((Text::PromptCompletion { prompt, completion: String::new() }, reference))
        }
        Some(Text::Chat(Chat { mut messages, context, counted_from })) => {
            let mut reference = reference;
            if messages.last().is_some_and(|m| m.role == "assistant") {
                reference = messages.pop().map(|m| m.text());
            }
            if messages.is_empty() {
                let what = "the chat has no turn before the answer";
                return Err(Error::Data { at: record.at, what: what.into() });
            }
            Ok((Text::Chat(Chat { messages, context, counted_from }), reference))
        }
        _ => Err(Error::Data { at: record.at, what: "no prompt".into() }),
    }
}

fn labelled(fields: &Map<String, Value>, at: &str) -> Result<Text> {
    let fields = Fields::new(fields, at, "classification", &["text"]);
    Ok(Text::Input { text: fields.text("text")?, pair: fields.optional_text("text_pair")? })
}

fn words(fields: &Map<String, Value>, at: &str) -> Result<Text> {
    let fields = Fields::new(fields, at, "token_classification", &["tokens"]);
    let list = match fields.get("tokens") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        Some(other) => return Err(fields.unexpected("tokens", "a list of words", other)),
        None => return Err(fields.missing("tokens")),
    };
    let word = |value: &Value| {
        value.as_str().map(str::to_string).ok_or_else(|| fields.unexpected("tokens", "a list of words", value))
    };
    Ok(Text::Words(list.iter().map(word).collect::<Result<_>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, answer: Answer) -> Result<(Text, Option<String>)> {
        let fields = serde_json::from_str(text).unwrap();
        match answer {
            Answer::Text => prompt(&fields, "a:1"),
            Answer::Label => Ok((labelled(&fields, "a:1")?, None)),
            Answer::Tags => Ok((words(&fields, "a:1")?, None)),
        }
    }

    #[test]
    fn prompts_with_and_without_answers() {
        let plain = |prompt: &str| Text::PromptCompletion { prompt: prompt.into(), completion: String::new() };
        for (fields, wanted, reference) in [
            (r#"{"prompt": "a"}"#, plain("a"), None),
            (r#"{"prompt": "a", "completion": "b"}"#, plain("a"), Some("b")),
            (r#"{"prompt": "a", "completion": null, "text": "c"}"#, plain("a"), None),
            (r#"{"text": "a"}"#, plain("a"), None),
        ] {
            assert_eq!(of(fields, Answer::Text).unwrap(), (wanted, reference.map(str::to_string)), "{fields}");
        }
        let (Text::PromptCompletion { prompt, .. }, reference) =
            of(r#"{"instruction": "Add.", "input": "1 2"}"#, Answer::Text).unwrap()
        else {
            panic!()
        };
        assert!(prompt.contains("### Input:\n1 2") && reference.is_none());
    }

    #[test]
    fn chats_end_before_the_answer() {
        let user = r#"{"role": "user", "content": "a"}"#;
        let assistant = r#"{"role": "assistant", "content": "b"}"#;
        for (fields, reference) in [
            (format!(r#"{{"messages": [{user}, {assistant}]}}"#), Some("b")),
            (format!(r#"{{"messages": [{user}]}}"#), None),
            (format!(r#"{{"prompt": [{user}], "completion": [{assistant}]}}"#), Some("b")),
            (format!(r#"{{"prompt": [{user}]}}"#), None),
        ] {
            let (Text::Chat(chat), found) = of(&fields, Answer::Text).unwrap() else { panic!() };
            assert_eq!((chat.messages.len(), found.as_deref()), (1, reference), "{fields}");
        }
        let error = of(&format!(r#"{{"messages": [{assistant}]}}"#), Answer::Text).unwrap_err().to_string();
        assert!(error.contains("a:1: the chat has no turn before the answer"), "{error}");
    }

    #[test]
    fn inputs_of_heads() {
        let pair = of(r#"{"text": "a", "text_pair": "b", "label": 3}"#, Answer::Label).unwrap().0;
        assert_eq!(pair, Text::Input { text: "a".into(), pair: Some("b".into()) });
        let error = of(r#"{"tekst": "a"}"#, Answer::Label).unwrap_err().to_string();
        assert!(error.contains("no field `text`, there are `tekst`"), "{error}");
        assert_eq!(of(r#"{"tokens": ["a"]}"#, Answer::Tags).unwrap().0, Text::Words(vec!["a".into()]));
        assert!(of(r#"{"tokens": "a"}"#, Answer::Tags).is_err());
        let error = of(r#"{"id": 1}"#, Answer::Text).unwrap_err().to_string();
        assert!(error.contains("no prompt in the fields `id`"), "{error}");
    }
}
