//! Stanford Alpaca's instructions: `instruction`, maybe `input`, and `output`.

use crate::Result;
use crate::data::fields::Fields;
use crate::data::format::DataFormat;
use crate::data::record::{Record, Text};

/// Instructions in Alpaca's words (`alpaca`).
#[derive(Debug)]
pub struct Alpaca;

impl DataFormat for Alpaca {
    fn name(&self) -> &'static str {
        "alpaca"
    }

    fn columns(&self) -> &'static [&'static str] {
        &["instruction", "output"]
    }

    fn read(&self, fields: &Fields<'_>) -> Result<Record> {
        let (instruction, completion) = (fields.text("instruction")?, fields.text("output")?);
        let input = fields.optional_text("input")?.filter(|s| !s.trim().is_empty());
        let below = "Below is an instruction that describes a task";
        let prompt = match input {
            Some(i) => format!(
                "{below}, paired with an input that provides further context. Write a response that appropriately \
                 completes the request.\n\n### Instruction:\n{instruction}\n\n### Input:\n{i}\n\n### Response:\n"
            ),
            None => format!(
                "{below}. Write a response that appropriately completes the request.\n\n### \
                 Instruction:\n{instruction}\n\n### Response:\n"
            ),
        };
        Ok(Record::new(fields.at(), Text::PromptCompletion { prompt, completion }))
    }
}
