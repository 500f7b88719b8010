//! The data formats, one file each. To add one, write its file and its line in [`formats`].

mod alpaca;
mod classification;
mod messages;
mod multi_label;
mod preference;
mod prompt_completion;
mod regression;
mod text;
mod token_classification;
mod turns;
mod unpaired_preference;

pub use alpaca::Alpaca;
pub use classification::Classification;
pub use messages::Messages;
pub use multi_label::MultiLabel;
pub use preference::Preference;
pub use prompt_completion::PromptCompletion;
pub use regression::Regression;
pub use text::PlainText;
pub use token_classification::TokenClassification;
pub use unpaired_preference::UnpairedPreference;

use super::format::DataFormat;
use serde_json::{Map, Value};

/// All formats. Where several recognise a record, the last is taken.
pub fn formats() -> &'static [&'static dyn DataFormat] {
    &[
        &PlainText,
        &Classification,
        &Regression,
        &MultiLabel,
        &TokenClassification,
        &Alpaca,
        &PromptCompletion,
        &UnpairedPreference,
        &Messages,
        &Preference,
    ]
}

/// The format of this name.
pub fn find_format(name: &str) -> Option<&'static dyn DataFormat> {
    formats().iter().copied().find(|f| f.name() == name)
}

/// The format that these fields make.
pub(super) fn recognised(fields: &Map<String, Value>) -> Option<&'static dyn DataFormat> {
    formats().iter().rev().copied().find(|f| f.recognises(fields))
}

/// The columns of all formats, for messages: `text, text + label, …, or messages`.
pub(super) fn all_columns() -> String {
    let mut all: Vec<String> = Vec::new();
    for columns in formats().iter().map(|f| f.columns().join(" + ")) {
        if !all.contains(&columns) {
            all.push(columns);
        }
    }
    let last = all.pop().unwrap_or_default();
    format!("{}, or {last}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (i, f) in formats().iter().enumerate() {
            assert_eq!(find_format(f.name()).unwrap(), *f);
            assert!(formats()[..i].iter().all(|g| g.name() != f.name()), "{} twice", f.name());
            assert!(f.includes().iter().all(|n| find_format(n).is_some()));
        }
        assert!(find_format("nothing").is_none());
        assert!(all_columns().starts_with("text, text + label, "), "{}", all_columns());
    }

    #[test]
    fn formats_are_recognised_by_their_fields() {
        for (text, name) in [
            (r#"{"text": "a"}"#, "text"),
            (r#"{"text": "a", "label": null}"#, "classification"),
            (r#"{"text": "a", "label": 3}"#, "classification"),
            (r#"{"text": "a", "label": "b"}"#, "classification"),
            (r#"{"text": "a", "label": 3.5}"#, "regression"),
            (r#"{"text": "a", "labels": []}"#, "multi_label"),
            (r#"{"text": "a", "labels": "b"}"#, "text"),
            (r#"{"tokens": ["a"], "ner_tags": ["O"], "text": "a"}"#, "token_classification"),
            (r#"{"instruction": "a", "output": "b", "text": "c"}"#, "alpaca"),
            (r#"{"prompt": "a", "completion": "b", "text": "c"}"#, "prompt_completion"),
            (r#"{"messages": [], "prompt": "a", "completion": "b"}"#, "messages"),
            (r#"{"conversations": []}"#, "messages"),
            (r#"{"prompt": "a", "completion": "b", "label": true}"#, "unpaired_preference"),
            (r#"{"prompt": "a", "completion": "b", "label": "False"}"#, "unpaired_preference"),
            (r#"{"prompt": "a", "completion": "b", "label": 1}"#, "prompt_completion"),
            (r#"{"prompt": "a", "completion": "b", "label": null}"#, "prompt_completion"),
            (r#"{"chosen": "a", "rejected": "b"}"#, "preference"),
            (r#"{"prompt": "a", "chosen": [], "rejected": [], "messages": []}"#, "preference"),
        ] {
            let fields: Map<String, Value> = serde_json::from_str(text).unwrap();
            assert_eq!(recognised(&fields).unwrap().name(), name, "{text}");
        }
        assert!(recognised(&Map::new()).is_none());
    }
}
