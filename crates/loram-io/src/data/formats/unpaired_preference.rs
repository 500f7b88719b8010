//! Judged answers: `prompt`, `completion`, and a `label` that says if the answer is desirable; texts or lists of turns.

use super::prompt_completion::PromptCompletion;
use crate::Result;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Label, Record};
use serde_json::{Map, Value};

/// Answers that are desirable or not (`unpaired_preference`), in the forms of TRL.
#[derive(Debug)]
pub struct UnpairedPreference;

impl DataFormat for UnpairedPreference {
    fn name(&self) -> &'static str {
        "unpaired_preference"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["prompt", "completion", "label"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        has(fields, "prompt")
            && has(fields, "completion")
            && fields.get("label").is_some_and(|l| desirable(l).is_some())
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let label = fields.get("label").ok_or_else(|| fields.missing("label"))?;
        let yes = desirable(label).ok_or_else(|| fields.unexpected("label", "true or false", label))?;
        Ok(Record { label: Some(Label::Desirable(yes)), ..PromptCompletion.read(fields)? })
    }
}

/// Tables write `True` and `False` as texts.
fn desirable(label: &Value) -> Option<bool> {
    match label {
        Value::Bool(yes) => Some(*yes),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
