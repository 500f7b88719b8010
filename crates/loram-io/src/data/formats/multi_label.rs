//! Texts with any number of classes: `text`, maybe `text_pair`, and `labels`, a list of names or ids, or of a 0 or 1 for each class.

use super::classification::labelled;
use crate::Result;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Label, Record};
use serde_json::{Map, Value};

/// Texts with any number of classes (`multi_label`).
#[derive(Debug)]
pub struct MultiLabel;

impl DataFormat for MultiLabel {
    fn name(&self) -> &'static str {
        "multi_label"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["text", "labels"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        has(fields, "text") && fields.get("labels").is_some_and(Value::is_array)
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let list = match fields.get("labels") {
            Some(Value::Array(list)) => list,
            Some(other) => return Err(fields.unexpected("labels", "a list of names or ids, or of 0 and 1", other)),
            None => return Err(fields.missing("labels")),
        };
        if let Some(flags) = flags(list) {
            return labelled(fields, Label::Flags(flags));
        }
        let labels = list.iter().map(|value| named(fields, "labels", value)).collect::<Result<_>>()?;
        labelled(fields, Label::Several(labels))
    }

    /// Lists of whole numbers are ids. Where all of them have a 0 or 1 in each of the same number of places, they are no ids.
    fn complete(&self, records: &mut [Record]) {
        let bits = |label: &Label| match label {
            Label::Several(list) => list
                .iter()
                .map(|l| match l {
                    Label::Id(0) => Some(false),
                    Label::Id(1) => Some(true),
                    _ => None,
                })
                .collect::<Option<Vec<bool>>>(),
            _ => None,
        };
        let all: Option<Vec<Vec<bool>>> = records.iter().map(|r| bits(r.label.as_ref()?)).collect();
        let Some(all) = all.filter(|all| all.iter().all(|b| b.len() >= 2 && b.len() == all[0].len())) else { return };
        for (record, flags) in records.iter_mut().zip(all) {
            record.label = Some(Label::Flags(flags));
        }
    }
}

/// A list that can be nothing but a 0 or 1 for each class: of true and false, or of fractions.
fn flags(list: &[Value]) -> Option<Vec<bool>> {
    let flag = |value: &Value| match value {
        Value::Bool(b) => Some(*b),
        Value::Number(n) if n.is_f64() => match n.as_f64() {
            Some(0.0) => Some(false),
            Some(1.0) => Some(true),
            _ => None,
        },
        _ => None,
    };
    list.iter().map(flag).collect::<Option<Vec<_>>>().filter(|flags| !flags.is_empty())
}

/// A name or an id in a list.
pub(super) fn named(fields: &Fields<'_>, key: &str, value: &Value) -> Result<Label> {
    match value {
        Value::String(name) => Ok(Label::Name(name.clone())),
        Value::Number(n) if n.is_u64() => Ok(Label::Id(n.as_u64().unwrap_or_default())),
        other => {
            let what =
                format!("field `{key}`: expected a list of names or of whole numbers from 0, found {other} in it");
            Err(fields.error(what))
        }
    }
}
