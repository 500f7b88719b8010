//! Chats as text: the model's Jinja template, rendered as transformers renders it, and where the assistant speaks.

use crate::tokenizer::TextTokenizer;
use crate::{Error, Result};
use jiff::fmt::strtime::{BrokenDownTime, Config, PosixCustom};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Jinja};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ops::Range;

/// ChatML, for models without a template (`chat_template: chatml`).
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// One turn of a chat. Fields beside role and content (tool calls, names) reach the template as they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`.
    pub role: String,
    /// What is said.
    #[serde(default)]
    pub content: Value,
    /// Everything else.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

impl Message {
    /// A turn of text.
    pub fn new(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into(), rest: Map::new() }
    }
}

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    specials: Vec<(String, String)>,
}

impl ChatTemplate {
    /// The model's own template, or `given`: Jinja source, `chatml`, or the path of a file. An error when there is none.
    pub fn new(tokenizer: &TextTokenizer, given: Option<&str>) -> Result<ChatTemplate> {
        let source = match given {
            Some("chatml") => CHATML.to_string(),
            Some(path) if !path.contains(['{', '\n']) => {
                std::fs::read_to_string(path).map_err(|e| Error::io("read", path, e))?
            }
            Some(source) => source.to_string(),
            None => tokenizer.chat_template().map(str::to_string).ok_or_else(|| {
                Error::Usage(format!(
                    "{}: the model has no chat template, which chats need: set chat_template (--chat-template) to \
                     `chatml`, a file or a Jinja template",
                    tokenizer.dir().display()
                ))
            })?,
        };
        let specials = tokenizer.specials().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        ChatTemplate::compile(&source, specials)
    }

    fn compile(source: &str, specials: Vec<(String, String)>) -> Result<ChatTemplate> {
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.expect("the usual delimiters"));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |text: String| -> std::result::Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        env.add_function("strftime_now", |format: String| now(&format));
        env.add_filter("tojson", to_json);
        // transformers' marks around the assistant's words: where it speaks is found by `spans`
        let marks = regex::Regex::new(r"\{%(-?)\s*(end)?generation\s*(-?)%\}").expect("pattern");
        let source = marks.replace_all(source, "{%$1 if true $3%}{%$1 endif $3%}").into_owned();
        env.add_template_owned("chat", source).map_err(|e| Error::Usage(format!("chat template: {}", cause(&e))))?;
        Ok(ChatTemplate { env, specials })
    }

    /// The text of a chat, ready for the model. `prompt` adds what makes the assistant speak next.
    pub fn render(&self, messages: &[Message], prompt: bool) -> Result<String> {
        let mut context: std::collections::BTreeMap<&str, Jinja> =
            self.specials.iter().map(|(k, v)| (k.as_str(), Jinja::from(v.as_str()))).collect();
        context.insert("messages", Jinja::from(Serde(messages)));
        context.insert("add_generation_prompt", prompt.into());
        let template = self.env.get_template("chat").expect("added when compiled");
        template.render(context).map_err(|e| Error::Usage(format!("chat template: {}", cause(&e))))
    }

    /// What the template writes after the assistant's words, such as `<|im_end|>`; `None` when that is nothing.
    pub fn end_of_turn(&self) -> Option<String> {
        const WORDS: &str = "Xyzzy";
        let text = self.render(&[Message::new("user", "a"), Message::new("assistant", WORDS)], false).ok()?;
        let end = text.rsplit_once(WORDS)?.1.trim();
        (!end.is_empty()).then(|| end.to_string())
    }

    /// The text of a chat and the byte ranges in which the assistant speaks, its end-of-turn mark included.
    pub fn spans(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>)> {
        let text = self.render(messages, false)?;
        let mut spans = Vec::new();
        for (i, m) in messages.iter().enumerate().filter(|(_, m)| m.role == "assistant") {
            let before = self.render(&messages[..i], true)?;
            // templates that say more in a prompt (empty thoughts) than they keep: from where both agree
            let start = common(&before, &text);
            let start = if start == before.len() { start } else { self.content_start(&text, start, m)? };
            let whole = self.render(&messages[..=i], false)?;
            let end = match text.strip_prefix(whole.as_str()) {
                Some(_) => whole.len(),
                None if i + 1 == messages.len() => text.len(),
                // earlier turns are shown differently from last ones: up to where the next turn's heading starts
                None => {
                    let next = self.render(&messages[..i + 2], false)?;
                    let content = m.content.as_str().unwrap_or_default().trim();
                    let said = text[start..common(&next, &text)].find(content);
                    let after = said.map(|p| start + p + content.len());
                    after.map_or(start, |p| p + text[p..].find('\n').map_or(0, |n| n + 1))
                }
            };
            if end > start {
                spans.push(start..end);
            }
        }
        Ok((text, spans))
    }

    fn content_start(&self, text: &str, from: usize, m: &Message) -> Result<usize> {
        let content = m.content.as_str().unwrap_or_default().trim();
        text[from..].find(content).map(|p| from + p).ok_or_else(|| {
            Error::Usage(
                "chat template: it shows the assistant's words differently depending on what follows, so they cannot be \
                 told apart for the loss: give a chat_template without that, or data as prompt and completion"
                    .into(),
            )
        })
    }
}

/// The innermost message, e.g. that of raise_exception.
fn cause(e: &minijinja::Error) -> String {
    e.detail().map_or_else(|| e.to_string(), |d| format!("{d} (line {})", e.line().unwrap_or(0)))
}

/// Length in bytes of the common start, at a character's border.
fn common(a: &str, b: &str) -> usize {
    a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((i, _), _)| i)
}

/// The local time by a `strftime` format; directives that it does not know stay as they are, as in Python.
fn now(format: &str) -> std::result::Result<String, minijinja::Error> {
    let now = BrokenDownTime::from(&jiff::Zoned::now());
    now.to_string_with_config(&Config::new().custom(PosixCustom::new()).lenient(true), format)
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// `tojson` as transformers has it: Python's json.dumps with its separators, nothing escaped for HTML.
fn to_json(value: Jinja, indent: Option<usize>) -> std::result::Result<String, minijinja::Error> {
    let value: Value =
        serde_json::to_value(&value).map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    let mut out = String::new();
    write_json(&value, indent, 0, &mut out);
    Ok(out)
}

fn write_json(v: &Value, indent: Option<usize>, depth: usize, out: &mut String) {
    let line = |out: &mut String, depth: usize| {
        if let Some(n) = indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', n * depth));
        }
    };
    let comma = if indent.is_some() { "," } else { ", " };
    match v {
        Value::Array(list) if !list.is_empty() => {
            out.push('[');
            for (i, x) in list.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                write_json(x, indent, depth + 1, out);
            }
            line(out, depth);
            out.push(']');
        }
        Value::Object(map) if !map.is_empty() => {
            out.push('{');
            for (i, (k, x)) in map.iter().enumerate() {
                out.push_str(if i > 0 { comma } else { "" });
                line(out, depth + 1);
                out.push_str(&Value::from(k.as_str()).to_string());
                out.push_str(": ");
                write_json(x, indent, depth + 1, out);
            }
            line(out, depth);
            out.push('}');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> Vec<Message> {
        let turns =
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "Bye"), ("assistant", "Ciao.")];
        turns.map(|(r, c)| Message::new(r, c)).to_vec()
    }

    #[test]
    fn assistant_spans_include_the_end_of_turn() {
        let t = ChatTemplate::compile(CHATML, vec![]).unwrap();
        let (text, spans) = t.spans(&chat()).unwrap();
        let said: Vec<_> = spans.into_iter().map(|s| &text[s]).collect();
        assert_eq!(said, ["Hello!<|im_end|>\n", "Ciao.<|im_end|>\n"]);
        assert!(t.render(&chat()[..2], true).unwrap().ends_with("<|im_start|>assistant\n"));
        assert_eq!(t.end_of_turn().as_deref(), Some("<|im_end|>"));
    }

    #[test]
    fn templates_that_show_the_last_turn_differently() {
        let source = "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}{{ m.content }}<end>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
        let t = ChatTemplate::compile(source, vec![]).unwrap();
        let (text, spans) = t.spans(&chat()).unwrap();
        let said: Vec<_> = spans.into_iter().map(|s| &text[s]).collect();
        assert_eq!(said, ["Hello!<end>\n", "<think></think>Ciao.<end>\n"]);
    }

    #[test]
    fn python_habits() {
        let source = "{%- generation -%}{{ messages[0]['content'].strip().upper() }}{%- endgeneration -%}{{ {'a': [1, 'é<']} | tojson }}{% if messages|length > 9 %}{{ raise_exception('too long') }}{% endif %}";
        let t = ChatTemplate::compile(source, vec![]).unwrap();
        assert_eq!(t.render(&[Message::new("user", " x ")], false).unwrap(), "X{\"a\": [1, \"é<\"]}");
        let e = t.render(&vec![Message::new("user", "x"); 10], false).unwrap_err().to_string();
        assert!(e.contains("too long"), "{e}");
    }

    #[test]
    fn dates_by_strftime() {
        let at = |format: &str| jiff::Zoned::now().strftime(format).to_string();
        let source = "{{ strftime_now('%d %b %Y, %A, %H h, week %V %Q%%') }}";
        let t = ChatTemplate::compile(source, vec![]).unwrap();
        let (before, text, after) = (at("%d %b %Y, %A, %H h"), t.render(&[], false).unwrap(), at("%d %b %Y, %A, %H h"));
        assert!(text.starts_with(&before) || text.starts_with(&after), "{text}");
        assert!(text.contains(", week ") && text.ends_with('%'), "{text}");
    }
}
