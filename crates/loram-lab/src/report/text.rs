//! Renders a page as HTML and as Markdown by templates.

use super::page::Page;
use crate::{Error, Result};
use loram_io::visible;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde_json::Value;
use std::borrow::Cow;

fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    env.add_filter("code_spans", code_spans);
    env.add_filter("markdown", |text: String| markdown_of(&text));
    env.add_filter("fence", |text: String| fence(&text));
    Ok(env)
}

/// Escapes HTML and turns `…` into code.
fn code_spans(text: String) -> minijinja::Value {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut out = String::new();
    for (i, part) in escaped.split('`').enumerate() {
        match i % 2 {
            0 => out += part,
            _ => out += &format!("<code>{part}</code>"),
        }
    }
    minijinja::Value::from_safe_string(out)
}

/// Text as Markdown shows it unchanged, on one line, with `…` as code: names in run folders are of others, and must not
/// become links, HTML, emphasis, or further cells of a table.
fn markdown_of(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    let mut out = String::new();
    for (i, part) in parts.iter().enumerate() {
        match i % 2 {
            0 => escape(part, &mut out),
            // without its end it is no code
            _ if i + 1 == parts.len() => {
                out.push_str("\\`");
                escape(part, &mut out);
            }
            _ => {
                let code = part.replace(['\n', '\r'], " ").replace('|', "\\|");
                out += &if code.trim().is_empty() { code } else { format!("`{code}`") };
            }
        }
    }
    // at the start of a line these begin lists, headings and quotes
    if out.starts_with(['#', '+', '-', '=']) {
        out.insert(0, '\\');
    }
    out
}

fn escape(text: &str, out: &mut String) {
    let mut last = ' ';
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        let inside_word = last.is_alphanumeric() && rest.peek().is_some_and(|n| n.is_alphanumeric());
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' | '\r' | '\t' => out.push(' '),
            '_' if inside_word => out.push('_'),
            // colons, dots and at signs only where they would make an address a link
            ':' if rest.peek() == Some(&'/') => out.push_str("\\:"),
            '.' if out.ends_with("www") || out.ends_with("WWW") => out.push_str("\\."),
            '@' if inside_word => out.push_str("\\@"),
            '\\' | '*' | '_' | '[' | ']' | '|' | '~' | '$' => out.extend(['\\', c]),
            c => out.push(c),
        }
        last = c;
    }
}

/// A block of code, in a fence that is longer than any in the text.
fn fence(text: &str) -> String {
    let longest = text.split(|c: char| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}sh\n{text}{}{fence}", if text.ends_with('\n') { "" } else { "\n" })
}

/// Control characters written out in all texts of a page.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(shown) = visible(text) {
                *text = shown;
            }
        }
        Value::Array(list) => list.iter_mut().for_each(clean),
        Value::Object(map) => map.values_mut().for_each(clean),
        _ => {}
    }
}

fn render(name: &str, source: &str, page: &Page) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| Error::Failed(format!("cannot write the report: {e:#}"));
    let mut page = serde_json::to_value(page).map_err(|e| failed(&e))?;
    clean(&mut page);
    let context = minijinja::context! { page => Serde(page), version => env!("CARGO_PKG_VERSION") };
    environment().and_then(|env| env.render_named_str(name, source, context)).map_err(|e| failed(&e))
}

pub(super) fn html(page: &Page) -> Result<String> {
    render("report.html", include_str!("../../templates/report.html"), page)
}

pub(super) fn markdown(page: &Page) -> Result<String> {
    render("report.md", include_str!("../../templates/report.md"), page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_stays_text_in_markdown() {
        for (text, expected) in [
            ("token_accuracy 0.5 ± 0.1, 1e-2", "token_accuracy 0.5 ± 0.1, 1e-2"),
            ("at `lora`'s rate", "at `lora`'s rate"),
            ("a|b\nc", "a\\|b c"),
            ("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;"),
            (
                "[click](https://evil.example) www.evil.example a@evil.example",
                "\\[click\\](https\\://evil.example) www\\.evil.example a\\@evil.example",
            ),
            ("**b** _e_ ~~s~~ \\", "\\*\\*b\\*\\* \\_e\\_ \\~\\~s\\~\\~ \\\\"),
            ("an ` open <b>", "an \\` open &lt;b&gt;"),
            ("`a|b`", "`a\\|b`"),
            ("# not a heading", "\\# not a heading"),
        ] {
            assert_eq!(markdown_of(text), expected);
        }
        assert_eq!(fence("echo ```\n"), "````sh\necho ```\n````");
    }
}
