//! Texts with a class: `text`, maybe `text_pair`, and a `label` that is a name or a whole number.

use crate::Result;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Label, Record, Text};
use serde_json::{Map, Value};

/// Texts with a class (`classification`).
#[derive(Debug)]
pub struct Classification;

impl DataFormat for Classification {
    fn name(&self) -> &'static str {
        "classification"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["text", "label"]
    }

    /// Also with a label that is null, which is an error: the loss of plain text is not what a record with a label is for.
    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        has(fields, "text") && fields.contains_key("label")
    }

    fn includes(&self) -> &'static [&'static str] {
        &["regression"]
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let label = match fields.get("label") {
            Some(Value::Number(n)) => {
                let whole = n.as_f64().filter(|x| x.fract() == 0.0 && *x >= 0.0).map(|x| x as u64);
                Label::Id(n.as_u64().or(whole).ok_or_else(|| {
                    let what = "expected a name or a whole number (`task: regression` learns other numbers)";
                    fields.error(format!("field `label`: {what}, found {n}"))
                })?)
            }
            Some(Value::String(s)) => Label::Name(s.clone()),
            Some(Value::Bool(b)) => Label::Name(b.to_string()),
            Some(Value::Null) => {
                let what = "is null: expected a name or a whole number (to train on the text alone, remove the field or set \
                            dataset_format: text)";
                return Err(fields.error(format!("field `label` {what}")));
            }
            Some(other) => return Err(fields.unexpected("label", "a name or a whole number", other)),
            None => return Err(fields.missing("label")),
        };
        labelled(fields, label)
    }
}

/// A record of one text, or two, with a label.
pub(super) fn labelled(fields: &Fields<'_>, label: Label) -> Result<Record> {
    let text = Text::Input { text: fields.text("text")?, pair: fields.optional_text("text_pair")? };
    Ok(Record { label: Some(label), ..Record::new(fields.at(), text) })
}
