//! Words with a class each: `tokens`, a list of words, and `ner_tags`, a list of names or ids.

use super::multi_label::named;
use crate::Result;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Label, Record, Text};
use serde_json::{Map, Value};

/// Words with a class each (`token_classification`).
#[derive(Debug)]
pub struct TokenClassification;

impl DataFormat for TokenClassification {
    fn name(&self) -> &'static str {
        "token_classification"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["tokens", "ner_tags"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        has(fields, "ner_tags") && fields.get("tokens").is_some_and(Value::is_array)
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let list = |key: &str| match fields.get(key) {
            Some(Value::Array(list)) => Ok(list),
            Some(other) => Err(fields.unexpected(key, "a list", other)),
            None => Err(fields.missing(key)),
        };
        let (tokens, tags) = (list("tokens")?, list("ner_tags")?);
        if tokens.len() != tags.len() {
            let what = "expected a tag for each word";
            return Err(fields.error(format!(
                "{} words in `tokens`, {} in `ner_tags`: {what}",
                tokens.len(),
                tags.len()
            )));
        }
        if tokens.is_empty() {
            return Err(fields.error("field `tokens`: the list is empty".into()));
        }
        let word = |value: &Value| match value {
            Value::String(word) => Ok(word.clone()),
            other => Err(fields.error(format!("field `tokens`: expected a list of words, found {other} in it"))),
        };
        let words = tokens.iter().map(word).collect::<Result<Vec<_>>>()?;
        let tags = tags.iter().map(|value| named(fields, "ner_tags", value)).collect::<Result<Vec<_>>>()?;
        Ok(Record { label: Some(Label::Tags(tags)), ..Record::new(fields.at(), Text::Words(words)) })
    }
}
