//! The formats of records and how they are told apart.

use crate::chat::Chat;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Shape of the records of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `text`.
    Text,
    /// `prompt` and `completion`.
    PromptCompletion,
    /// `messages`, or ShareGPT's `conversations`.
    Messages,
    /// `instruction`, `input`, `output`.
    Alpaca,
    /// `text`, maybe `text_pair`, and a `label` that is a name or a whole number.
    Classification,
    /// The same with a number that is not whole.
    Regression,
}

impl Format {
    /// All names, for help texts.
    pub const NAMES: [&str; 6] = ["text", "prompt_completion", "messages", "alpaca", "classification", "regression"];

    /// Parses a name.
    pub fn parse(name: &str) -> Result<Format> {
        serde_json::from_value(name.into())
            .map_err(|_| Error::Usage(format!("format: `{name}` is unknown; expected {}", Format::NAMES.join(", "))))
    }

    /// The format's name in a configuration.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|v| v.as_str().map(str::to_string)).unwrap_or_default()
    }

    /// The format that these fields make.
    pub(crate) fn of(fields: &Map<String, Value>) -> Option<Format> {
        let has = |k: &str| fields.get(k).is_some_and(|v| !v.is_null());
        Some(if has("messages") || has("conversations") {
            Format::Messages
        } else if has("prompt") && has("completion") {
            Format::PromptCompletion
        } else if has("instruction") && has("output") {
            Format::Alpaca
        } else if has("text") && has("label") {
            match &fields["label"] {
                Value::Number(n) if n.is_f64() => Format::Regression,
                _ => Format::Classification,
            }
        } else if has("text") {
            Format::Text
        } else {
            return None;
        })
    }

    /// The fields of this format, for error messages.
    pub(crate) fn fields(self) -> &'static str {
        match self {
            Format::Text => "`text`",
            Format::PromptCompletion => "`prompt` and `completion`",
            Format::Messages => "`messages`",
            Format::Alpaca => "`instruction` and `output`",
            Format::Classification | Format::Regression => "`text` and `label`",
        }
    }
}

/// One record and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `file:line`, or `file: record n`.
    pub at: String,
    /// Its contents.
    pub body: Body,
}

/// The contents of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// A text; all of it counts.
    Text(String),
    /// A long text that is cut into pieces of the model's length, none of it lost.
    Stream(String),
    /// The loss is on the completion.
    PromptCompletion {
        /// The prompt.
        prompt: String,
        /// The text to learn.
        completion: String,
    },
    /// The loss is on the assistant's turns.
    Messages(Chat),
    /// A text, or two, with a label.
    Labelled {
        /// First text.
        text: String,
        /// Second text.
        pair: Option<String>,
        /// Its label.
        label: Label,
    },
}

/// A label as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A name.
    Name(String),
    /// An id.
    Id(u64),
    /// A number.
    Value(f32),
}

/// Names of classes by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Names.
    pub names: Vec<String>,
}

impl Labels {
    /// The labels that occur: names sorted, ids from 0 to the largest.
    pub fn from_records(records: &[Record]) -> Labels {
        let mut names = std::collections::BTreeSet::new();
        let mut ids = 0;
        for r in records {
            match &r.body {
                Body::Labelled { label: Label::Name(n), .. } => drop(names.insert(n.clone())),
                Body::Labelled { label: Label::Id(i), .. } => ids = ids.max(i + 1),
                _ => {}
            }
        }
        let numbered = (names.is_empty()).then(|| (0..ids).map(|i| i.to_string()));
        Labels { names: numbered.into_iter().flatten().chain(names).collect() }
    }

    /// The id of a label. An unknown one is an error that names the record and the labels there are.
    pub fn id(&self, label: &Label, at: &str) -> Result<usize> {
        let found = match label {
            Label::Name(n) => self.names.iter().position(|x| x == n),
            Label::Id(i) => (*i < self.names.len() as u64).then_some(*i as usize),
            Label::Value(_) => None,
        };
        found.ok_or_else(|| {
            let written = match label {
                Label::Name(n) => n.clone(),
                Label::Id(i) => i.to_string(),
                Label::Value(v) => v.to_string(),
            };
            let known = match self.names.len() {
                0..=12 => self.names.join(", "),
                n => format!("{}, … ({n} in all)", self.names[..8].join(", ")),
            };
            Error::Data {
                at: at.to_string(),
                what: format!("label `{written}` is unknown; the training data have {known}"),
            }
        })
    }
}
