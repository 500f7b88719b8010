//! Records: what a data format makes of the fields of a file.

use crate::chat::Chat;
use crate::limits::MAX_LABELS;
use crate::{Error, Result};
use std::collections::BTreeSet;

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

    /// True for answers that are compared with each other, or judged.
    pub fn is_preference(&self) -> bool {
        self.texts.len() > 1 || matches!(self.label, Some(Label::Desirable(_)))
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
    /// Words of a text, each of which has a label of its own.
    Words(Vec<String>),
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
    /// Several names or ids, in any order; may be none.
    Several(Vec<Label>),
    /// For each label, by id, true where it holds.
    Flags(Vec<bool>),
    /// A name or an id for each word.
    Tags(Vec<Label>),
    /// True for an answer that is desirable.
    Desirable(bool),
}

impl Label {
    /// The names and ids in it.
    pub fn parts(&self) -> &[Label] {
        match self {
            Label::Several(labels) | Label::Tags(labels) => labels,
            one => std::slice::from_ref(one),
        }
    }
}

/// Names of classes by id.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// Names.
    pub names: Vec<String>,
}

impl Labels {
    /// The labels that occur: names sorted (numbers by their size), ids from 0 to the largest.
    ///
    /// # Errors
    /// More than [`MAX_LABELS`]; the error names the record.
    pub fn from_records(records: &[Record]) -> Result<Labels> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        let mut ids: BTreeSet<u64> = BTreeSet::new();
        for (r, label) in records.iter().flat_map(|r| r.label.iter().flat_map(Label::parts).map(move |l| (r, l))) {
            let many = |what: String| Err(Error::Data { at: r.at.clone(), what });
            match label {
                Label::Id(i) if *i >= MAX_LABELS as u64 => {
                    let what = "labels that are numbers count classes from 0, of which there may be";
                    return many(format!("label {i}: {what} at most {MAX_LABELS} (`task: regression` learns numbers)"));
                }
                Label::Id(i) => drop(ids.insert(*i)),
                Label::Flags(flags) => ids.extend((flags.len() as u64).checked_sub(1)),
                Label::Name(n) if !names.contains(n.as_str()) => {
                    if names.len() == MAX_LABELS {
                        return many(format!("label `{n}`: more than {MAX_LABELS} different labels: is it a text?"));
                    }
                    names.insert(n);
                }
                _ => {}
            }
        }
        // a table writes every label as a text: "1" beside 1 is the same
        let numbers: Option<BTreeSet<u64>> = names.iter().map(|n| n.parse().ok()).collect();
        let names = match numbers {
            _ if names.is_empty() => (0..ids.last().map_or(0, |last| last + 1)).map(|i| i.to_string()).collect(),
            Some(numbers) => numbers.union(&ids).map(u64::to_string).collect(),
            None => names.into_iter().map(str::to_string).collect(),
        };
        Ok(Labels { names })
    }

    /// The id of a label: that of the name that is written so, else of the same number, of the only name that differs in case
    /// alone, or, where no name is a number, the number itself. `true` and `false` are 1 and 0 where the two names are numbers.
    pub fn find(&self, label: &Label) -> Option<usize> {
        let text = match label {
            Label::Name(n) => n.clone(),
            Label::Id(i) => i.to_string(),
            _ => return None,
        };
        let at = |same: &dyn Fn(&str) -> bool| {
            let mut found = self.names.iter().enumerate().filter(|(_, n)| same(n)).map(|(i, _)| i);
            found.next().filter(|_| found.next().is_none())
        };
        if let Some(i) = self.names.iter().position(|n| *n == text) {
            return Some(i);
        }
        let number: Option<usize> = text.trim().parse().ok();
        let by_number = || at(&|n| number.is_some() && n.parse().ok() == number);
        let by_case = || at(&|n| n.to_lowercase() == text.trim().to_lowercase());
        let numbered = self.names.iter().any(|n| n.parse::<u64>().is_ok());
        let by_place = || number.filter(|i| !numbered && *i < self.names.len());
        // transformers calls classes without names LABEL_0, LABEL_1, …
        let plain = |(i, n): (usize, &String)| *n == i.to_string() || *n == format!("LABEL_{i}");
        let two = self.names.len() == 2 && self.names.iter().enumerate().all(plain);
        let by_truth = || match text.to_lowercase().as_str() {
            "true" if two => Some(1),
            "false" if two => Some(0),
            _ => None,
        };
        by_number().or_else(by_case).or_else(by_place).or_else(by_truth)
    }

    /// Returns whether every name and id of a label is one of these.
    pub fn know(&self, label: &Label) -> bool {
        label.parts().iter().all(|part| match part {
            Label::Flags(flags) => flags.len() == self.names.len(),
            part => self.find(part).is_some(),
        })
    }

    /// [`Labels::find`]; an unknown label is an error that names the record and the labels there are.
    pub fn id(&self, label: &Label, at: &str) -> Result<usize> {
        self.find(label).ok_or_else(|| {
            let written = match label {
                Label::Name(n) => n.clone(),
                Label::Id(i) => i.to_string(),
                Label::Value(v) => v.to_string(),
                Label::Desirable(yes) => yes.to_string(),
                Label::Several(_) | Label::Flags(_) | Label::Tags(_) => "a list".into(),
            };
            let known = match self.names.len() {
                0..=12 => self.names.join(", "),
                n => format!("{}, … ({n} in all)", self.names[..8].join(", ")),
            };
            let what = format!("label `{written}` is unknown; the training data have {known}");
            Error::Data { at: at.to_string(), what }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(names: &[&str]) -> Labels {
        Labels { names: names.iter().map(|n| n.to_string()).collect() }
    }

    #[test]
    fn a_label_is_found_however_it_is_written() {
        let name = |n: &str| Label::Name(n.into());
        let plain = labels(&["LABEL_0", "LABEL_1"]);
        for label in [name("LABEL_1"), name("label_1"), name("1"), name(" 1"), name("true"), name("True"), Label::Id(1)]
        {
            assert_eq!(plain.find(&label), Some(1), "{label:?}");
        }
        let words = labels(&["NEG", "POS"]);
        assert_eq!(
            [words.find(&name("pos")), words.find(&name("0")), words.find(&name("true"))],
            [Some(1), Some(0), None]
        );
        assert_eq!(
            (words.find(&name("2")), words.find(&name("posi")), words.find(&Label::Value(1.0))),
            (None, None, None)
        );
        // labels that count from 1 are names, not places
        let ratings = labels(&["1", "2", "10"]);
        assert_eq!(
            [ratings.find(&Label::Id(2)), ratings.find(&name("02")), ratings.find(&Label::Id(0))],
            [Some(1), Some(1), None]
        );
        assert_eq!(labels(&["pos", "POS"]).find(&name("Pos")), None, "two differ in case alone");
    }

    #[test]
    fn labels_of_data() {
        let of = |list: &[Label]| {
            let record = |l: &Label| Record { label: Some(l.clone()), ..Record::new("x:1", Text::Plain("a".into())) };
            Labels::from_records(&list.iter().map(record).collect::<Vec<_>>()).unwrap().names
        };
        let name = |n: &str| Label::Name(n.into());
        assert_eq!(of(&[Label::Id(2), Label::Id(0)]), ["0", "1", "2"]);
        assert_eq!(of(&[name("10"), name("9"), Label::Id(1)]), ["1", "9", "10"]);
        assert_eq!(of(&[name("b"), name("a"), name("b")]), ["a", "b"]);
    }
}
