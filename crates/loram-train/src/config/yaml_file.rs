//! YAML documents with the line of each key.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The keys of a document.
#[derive(Debug, Clone, Default)]
pub(super) struct Document {
    pub values: Map<String, Value>,
    /// Line of each key of the outermost map, from 1.
    pub lines: BTreeMap<String, usize>,
}

/// Parses a YAML document that is a map with text keys; an empty document is an empty map. Errors, with the line: text that is
/// not YAML, a key that is given twice, something else than a map.
pub(super) fn parse(text: &str) -> Result<Document, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let only_comments = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if only_comments {
        return Ok(Document::default());
    }
    let lines = key_lines(text)?;
    match serde_saphyr::from_str::<Value>(text).map_err(|e| first_line(&e))? {
        Value::Object(values) => Ok(Document { values, lines }),
        Value::Null => Ok(Document::default()),
        _ => Err("expected a map of `key: value` lines".into()),
    }
}

/// Message and position of an error; its other lines draw the place.
fn first_line(e: &serde_saphyr::Error) -> String {
    let text = e.to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    // the library's own settings are nothing that a file can change
    match line.split_once("duplicate mapping key: ") {
        Some((place, rest)) => {
            let key = rest.split(',').next().unwrap_or(rest);
            format!("{place}the key `{key}` is given twice")
        }
        None => line.to_string(),
    }
}

/// The lines of the keys that stand at the left edge, outside of texts over several lines, which are indented.
fn key_lines(text: &str) -> Result<BTreeMap<String, usize>, String> {
    let mut out: BTreeMap<String, usize> = BTreeMap::new();
    for (i, line) in text.lines().enumerate() {
        let Some(key) = key_of(line) else { continue };
        if let Some(first) = out.insert(key.to_string(), i + 1) {
            return Err(format!("the key `{key}` is given twice, in lines {first} and {}", i + 1));
        }
    }
    Ok(out)
}

/// The key of a line such as `key: value`, `"key": value` or `key:`.
fn key_of(line: &str) -> Option<&str> {
    let (key, rest) = match line.chars().next()? {
        quote @ ('"' | '\'') => line[1..].split_once(quote)?,
        c if c.is_alphanumeric() || c == '_' => line.split_at(line.find(':')?),
        _ => return None,
    };
    let plain = !key.is_empty() && !key.contains(['"', '\'', '{', '[', '#']);
    let colon = rest.trim_start().strip_prefix(':')?;
    (plain && (colon.is_empty() || colon.starts_with([' ', '\t']))).then(|| key.trim_end())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn keys_have_lines() {
        let d = parse("# head\nr: 8\n\"lora_alpha\": 16\ntarget_modules:\n  - q_proj\nnotes: |\n  r: 9\n  x\nlearning_rate : 1e-3\n").unwrap();
        let line = |key: &str| d.lines.get(key).copied();
        assert_eq!(
            [line("r"), line("lora_alpha"), line("notes"), line("learning_rate")],
            [Some(2), Some(3), Some(6), Some(9)]
        );
        assert_eq!((d.lines.len(), d.values.len()), (5, 5));
        assert!(parse("# nothing\n\n").unwrap().values.is_empty());
    }

    #[test]
    fn errors_are_in_plain_words() {
        assert_eq!(parse("r: 8\nseed: 1\nr: 16\n").unwrap_err(), "the key `r` is given twice, in lines 1 and 3");
        let e = parse("a:\n  b: 1\n  b: 2\n").unwrap_err();
        assert!(e.contains("line 3") && e.contains("`b` is given twice") && !e.contains("Policy"), "{e}");
        assert!(parse("- a\n- b").unwrap_err().contains("expected a map"));
        let e = parse("model: a\nr: 8: 9\n").unwrap_err();
        assert!(e.contains("line 2"), "{e}");
    }
}
