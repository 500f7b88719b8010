//! Texts with a number: `text`, maybe `text_pair`, and a `label`.

use super::classification::labelled;
use crate::Result;
use crate::data::fields::{Fields, has};
use crate::data::format::DataFormat;
use crate::data::record::{Label, Record};
use serde_json::{Map, Value};

/// Texts with a number (`regression`). It is recognised by a number that is not whole; whole ones may be classes.
#[derive(Debug)]
pub struct Regression;

impl DataFormat for Regression {
    fn name(&self) -> &'static str {
        "regression"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["text", "label"]
    }

    fn recognises(&self, fields: &Map<String, Value>) -> bool {
        has(fields, "text") && fields.get("label").is_some_and(Value::is_f64)
    }

    fn includes(&self) -> &'static [&'static str] {
        &["classification"]
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let value = match fields.get("label") {
            Some(Value::Number(n)) => {
                let finite = n.as_f64().map(|x| x as f32).filter(|x| x.is_finite());
                finite.ok_or_else(|| fields.error(format!("field `label`: {n} is not a finite number")))?
            }
            Some(other) => return Err(fields.unexpected("label", "a number to be predicted", other)),
            None => return Err(fields.missing("label")),
        };
        labelled(fields, Label::Value(value))
    }
}
