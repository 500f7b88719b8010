//! Plain texts: `text`.

use crate::Result;
use crate::data::fields::Fields;
use crate::data::format::DataFormat;
use crate::data::record::{Record, Text};

/// A text, all of which counts (`text`).
#[derive(Debug)]
pub struct PlainText;

impl DataFormat for PlainText {
    fn name(&self) -> &'static str {
        "text"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["text"]
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        Ok(Record::new(fields.at(), Text::Plain(fields.text("text")?)))
    }
}
