//! Renders a page as HTML and as Markdown by templates.

use super::page::Page;
use crate::{Error, Result};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

fn environment() -> std::result::Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    env.add_filter("code_spans", code_spans);
    env.add_filter("cell", |text: String| text.replace('|', "\\|"));
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

fn render(name: &str, source: &str, page: &Page) -> Result<String> {
    let context = minijinja::context! { page => Serde(page), version => env!("CARGO_PKG_VERSION") };
    environment()
        .and_then(|env| env.render_named_str(name, source, context))
        .map_err(|e| Error::Failed(format!("cannot write the report: {e:#}")))
}

pub(super) fn html(page: &Page) -> Result<String> {
    render("report.html", include_str!("../../templates/report.html"), page)
}

pub(super) fn markdown(page: &Page) -> Result<String> {
    render("report.md", include_str!("../../templates/report.md"), page)
}
