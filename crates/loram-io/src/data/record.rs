//! Records: what a data format makes of the fields of a file.

use crate::chat::Chat;
use crate::limits::MAX_LABELS;
use crate::{Error, Result};

/// One record and where it stood.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// `file:line`, or `file: record n`.
    pub at: String,
    /// Its texts, at least one. Several belong together and become the sequences of one example.
    pub texts: Vec<Text>,
    /// Its label.
    pub label: Option<Label>,
}

impl Record {
    /// A record of one text without a label.
    pub fn new(at: impl Into<String>, text: Text) -> Record {
        Record { at: at.into(), texts: vec![text], label: None }
    }

    /// A record of texts that are compared with each other.
    pub fn compared(at: impl Into<String>, texts: Vec<Text>) -> Record {
        Record { at: at.into(), texts, label: None }
    }

    /// True when a chat is among its texts.
    pub fn is_chat(&self) -> bool {
        self.texts.iter().any(|t| matches!(t, Text::Chat(_)))
    }
}

/// A text of a record, with what decides which of its tokens the loss counts.
#[derive(Debug, Clone, PartialEq)]
pub enum Text {
    /// A text; all of it counts.
    Plain(String),
    /// A long text that is cut into pieces of the model's length, none of it lost.
    Document(String),
    /// The loss is on the completion.
    PromptCompletion {
        /// The prompt.
        prompt: String,
        /// The text to learn.
        completion: String,
    },
    /// The loss is on the assistant's turns.
    Chat(Chat),
    /// The input of a head: one text, or two in one sequence. No token counts; the record has a label.
    Input {
        /// First text.
        text: String,
        /// Second text.
        pair: Option<String>,
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
    ///
    /// # Errors
    /// More than [`MAX_LABELS`]; the error names the record.
    pub fn from_records(records: &[Record]) -> Result<Labels> {
        let mut names = std::collections::BTreeSet::new();
        let mut ids = 0;
        for r in records {
            let many = |what: String| Err(Error::Data { at: r.at.clone(), what });
            match &r.label {
                Some(Label::Id(i)) if *i >= MAX_LABELS as u64 => {
                    let what = "labels that are numbers count classes from 0, of which there may be";
                    return many(format!("label {i}: {what} at most {MAX_LABELS} (`task: regression` learns numbers)"));
                }
                Some(Label::Id(i)) => ids = ids.max(i + 1),
                Some(Label::Name(n)) if !names.contains(n) => {
                    if names.len() == MAX_LABELS {
                        return many(format!("label `{n}`: more than {MAX_LABELS} different labels: is it a text?"));
                    }
                    names.insert(n.clone());
                }
                _ => {}
            }
        }
        let numbered = (names.is_empty()).then(|| (0..ids).map(|i| i.to_string()));
        Ok(Labels { names: numbered.into_iter().flatten().chain(names).collect() })
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
