//! The `tojson` filter as transformers defines it: Python's `json.dumps`, nothing escaped for HTML.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value as Jinja};
use serde_json::Value;

/// Keyword arguments of `json.dumps` that transformers passes on.
#[derive(Debug, Clone, Default)]
struct Style {
    ensure_ascii: bool,
    /// Text of one level of indentation; `None` for one line.
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

/// `tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(value: Jinja, options: Kwargs) -> Result<String, Error> {
    let value: Value =
        serde_json::to_value(&value).map_err(|e| Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let indent = match options.get::<Option<Jinja>>("indent")?.filter(|v| !v.is_none()) {
        Some(v) => Some(match (v.as_str(), v.as_usize()) {
            (Some(text), _) => text.to_string(),
            (None, Some(n)) if n <= MAX_INDENT => " ".repeat(n),
            _ => return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: indent={v} is not supported"))),
        }),
        None => None,
    };
    let default = if indent.is_some() { "," } else { ", " };
    let (item, key) = match options.get::<Option<Vec<String>>>("separators")? {
        Some(list) => match <[String; 2]>::try_from(list) {
            Ok([item, key]) => (item, key),
            Err(_) => {
                return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators needs two strings"));
            }
        },
        None => (default.to_string(), ": ".to_string()),
    };
    let style = Style {
        ensure_ascii: options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        indent,
        item_separator: item,
        key_separator: key,
        sort_keys: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    let mut out = String::new();
    write(&value, &style, 0, &mut out);
    Ok(out)
}

/// More spaces per level than any template uses; a larger number would only fill memory.
const MAX_INDENT: usize = 64;

fn write(value: &Value, style: &Style, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(indent) = &style.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    };
    match value {
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, x) in list.iter().enumerate() {
                out.push_str(if i > 0 { &style.item_separator } else { "" });
                line(out, depth + 1);
                write(x, style, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            let mut entries: Vec<_> = map.iter().collect();
            if style.sort_keys {
                entries.sort_by(|a, b| a.0.cmp(b.0));
            }
            out.push('{');
            for (i, (k, x)) in entries.into_iter().enumerate() {
                out.push_str(if i > 0 { &style.item_separator } else { "" });
                line(out, depth + 1);
                string(k, style, out);
                out.push_str(&style.key_separator);
                write(x, style, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        Value::String(text) => string(text, style, out),
        other => out.push_str(&other.to_string()),
    }
}

/// A JSON string; with `ensure_ascii`, other characters as `\uXXXX` in UTF-16, as Python writes them.
fn string(text: &str, style: &Style, out: &mut String) {
    let json = Value::from(text).to_string();
    if !style.ensure_ascii || json.is_ascii() {
        return out.push_str(&json);
    }
    for c in json.chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    fn render(source: &str) -> Result<String, minijinja::Error> {
        let mut env = minijinja::Environment::new();
        env.add_filter("tojson", super::tojson);
        env.render_str(source, ())
    }

    // expected values: json.dumps of Python 3.11
    #[test]
    fn as_python_writes_it() {
        for (call, expected) in [
            ("tojson", r#"{"b": [1, 2.5, "é<\u{1f600}"], "a": {}}"#),
            ("tojson(ensure_ascii=True)", r#"{"b": [1, 2.5, "\u00e9<\ud83d\ude00"], "a": {}}"#),
            ("tojson(separators=(',', ':'))", r#"{"b":[1,2.5,"é<\u{1f600}"],"a":{}}"#),
            ("tojson(sort_keys=True)", r#"{"a": {}, "b": [1, 2.5, "é<\u{1f600}"]}"#),
            ("tojson(indent=2)", "{\n  \"b\": [\n    1,\n    2.5,\n    \"é<\u{1f600}\"\n  ],\n  \"a\": {}\n}"),
            (
                "tojson(indent='\t', sort_keys=True)",
                "{\n\t\"a\": {},\n\t\"b\": [\n\t\t1,\n\t\t2.5,\n\t\t\"é<\u{1f600}\"\n\t]\n}",
            ),
        ] {
            let expected = expected.replace("\\u{1f600}", "\u{1f600}");
            let source = format!("{{{{ {{'b': [1, 2.5, 'é<\u{1f600}'], 'a': {{}}}} | {call} }}}}");
            assert_eq!(render(&source).unwrap(), expected, "{call}");
        }
        for wrong in ["tojson(indent=100000)", "tojson(colour=1)", "tojson(separators=('a',))"] {
            assert!(render(&format!("{{{{ [1] | {wrong} }}}}")).is_err(), "{wrong}");
        }
    }
}
