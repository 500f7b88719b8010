//! Names that columns have elsewhere, to suggest how they are renamed.

use serde_json::{Map, Value};

/// Names by column of a format, the likeliest first.
const NAMES: [(&str, &[&str]); 7] = [
    ("tokens", &["words"]),
    ("ner_tags", &["tags", "labels", "pos_tags", "chunk_tags"]),
    ("text", &["sentence", "sentence1", "content", "review", "document", "body", "input"]),
    ("text_pair", &["sentence2", "premise", "hypothesis"]),
    ("label", &["labels", "class", "category", "sentiment", "intent", "target", "score"]),
    ("prompt", &["question", "query", "instruction", "problem", "input", "source"]),
    ("completion", &["answer", "response", "output", "solution", "target", "reply", "chosen"]),
];

/// Columns that together make a format; the first that the fields can give is suggested.
const FORMATS: [&[&str]; 4] = [&["tokens", "ner_tags"], &["prompt", "completion"], &["text", "label"], &["text"]];

/// The flag that renames fields so that they make a known format, e.g. `--columns '{prompt: question, completion: answer}'`.
/// Without an idea what the fields mean it has placeholders.
pub(super) fn renaming(fields: &Map<String, Value>) -> String {
    let source = |column: &str| -> Option<String> {
        let text = |name: &&str| fields.get(*name).is_some_and(|v| !v.is_null());
        let names = NAMES.iter().find(|n| n.0 == column).map_or(&[][..], |n| n.1);
        std::iter::once(&column).chain(names).find(|n| text(n)).map(|n| n.to_string())
    };
    for columns in FORMATS {
        let Some(sources) = columns.iter().map(|c| source(c)).collect::<Option<Vec<_>>>() else { continue };
        let mut pairs: Vec<(&str, String)> = columns.iter().copied().zip(sources).collect();
        if columns.contains(&"label") {
            pairs.extend(source("text_pair").map(|s| ("text_pair", s)));
        }
        let renamed: Vec<String> =
            pairs.iter().filter(|(to, from)| to != from).map(|(to, from)| format!("{to}: {from}")).collect();
        if !renamed.is_empty() {
            return format!("--columns '{{{}}}'", renamed.join(", "));
        }
    }
    "--columns '{prompt: YOUR_COLUMN, completion: YOUR_COLUMN}'".into()
}

#[cfg(test)]
mod tests {
    use super::renaming;

    #[test]
    fn usual_names_are_known() {
        for (fields, flag) in [
            (r#"{"question": "a", "answer": "b"}"#, "--columns '{prompt: question, completion: answer}'"),
            (r#"{"prompt": "a", "response": "b"}"#, "--columns '{completion: response}'"),
            (r#"{"instruction": "a", "response": "b"}"#, "--columns '{prompt: instruction, completion: response}'"),
            (r#"{"sentence": "a", "label": 1}"#, "--columns '{text: sentence}'"),
            (
                r#"{"sentence1": "a", "sentence2": "b", "score": 1}"#,
                "--columns '{text: sentence1, label: score, text_pair: sentence2}'",
            ),
            (r#"{"content": "a"}"#, "--columns '{text: content}'"),
            (r#"{"words": ["a"], "tags": ["O"]}"#, "--columns '{tokens: words, ner_tags: tags}'"),
            (r#"{"x": "a"}"#, "--columns '{prompt: YOUR_COLUMN, completion: YOUR_COLUMN}'"),
        ] {
            assert_eq!(renaming(&serde_json::from_str(fields).unwrap()), flag, "{fields}");
        }
    }
}
