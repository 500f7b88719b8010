//! Compiling and rendering of chat templates.

use super::json::tojson;
use super::message::{ASSISTANT, Message, roles};
use crate::caught::caught;
use crate::memory_budget::within;
use crate::tokenizer::TextTokenizer;
use crate::{Error, Result, input};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value as Jinja};
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;

/// ChatML, for models without a template (`chat_template: chatml`).
pub const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Steps of the template engine for any chat, and for each byte of its messages. Real templates use about a hundredth.
const FUEL: u64 = 5_000_000;
const FUEL_PER_BYTE: u64 = 2_000;
/// Longest rendered chat in bytes, for any chat and for each byte of its messages.
const OUTPUT: usize = 4 << 20;
const OUTPUT_PER_BYTE: usize = 64;
/// Memory in bytes that rendering may take, for any chat and for each byte of its messages. The engine does not count
/// sums of lists: doubling one 33 times would fill any memory.
const MEMORY: usize = 512 << 20;
const MEMORY_PER_BYTE: usize = 4096;
const TOO_MUCH_MEMORY: &str = "chat template: it takes too much memory: it loops, or builds lists that are too long. Give another \
                               template (--chat-template)";

/// Characters that a marked template writes around the assistant's text. Unicode reserves them for internal use; a chat
/// that holds them is refused.
pub(super) const MARK_BEGIN: char = '\u{fdd0}';
pub(super) const MARK_END: char = '\u{fdd1}';

static GENERATION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a valid pattern"));

/// A compiled chat template.
pub struct ChatTemplate {
    env: Environment<'static>,
    source: String,
    specials: Vec<(String, String)>,
    /// `chat_template_kwargs`: values for every chat.
    kwargs: Map<String, Value>,
    /// The template marks the assistant's text with `{% generation %}`.
    marked: bool,
}

impl ChatTemplate {
    /// Compiles the model's own template, or `given`: Jinja source, `chatml`, or the path of a file. `kwargs` are variables
    /// for every chat (transformers' `chat_template_kwargs`), such as `enable_thinking`. Errors: no template; Jinja that does not compile.
    pub fn new(tokenizer: &TextTokenizer, given: Option<&str>, kwargs: &Map<String, Value>) -> Result<ChatTemplate> {
        let source = match given {
            Some("chatml") => CHATML.to_string(),
            Some(path) if !path.contains(['{', '\n']) => {
                input::read_text_if_there(path)?.ok_or_else(|| Error::NotFound {
                    path: path.into(),
                    what:
                        "no chat template of this name and no such file: there is `chatml`; else give a file or Jinja \
                           source, or leave it out to use the model's own"
                            .into(),
                })?
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
        ChatTemplate::compile(source, specials, kwargs.clone())
    }

    /// Compiles Jinja source; `specials` are the tokenizer's special tokens by name (`bos_token`, …).
    pub fn compile(
        source: String,
        specials: Vec<(String, String)>,
        kwargs: Map<String, Value>,
    ) -> Result<ChatTemplate> {
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        env.set_syntax(syntax.expect("the usual delimiters"));
        env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        env.add_function("raise_exception", |text: String| -> std::result::Result<Jinja, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, text))
        });
        env.add_function("strftime_now", |format: String| {
            let now = jiff::Zoned::now();
            jiff::fmt::strtime::format(&format, &now)
                .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now: {e}")))
        });
        env.add_filter("tojson", tojson);
        let marked = GENERATION.is_match(&source);
        caught(|| env.add_template_owned("chat", with_marks(&source)))
            .map_err(|panic| Error::Usage(format!("chat template: the template engine stopped with \"{panic}\"")))?
            .map_err(|e| Error::Usage(problem(&e)))?;
        Ok(ChatTemplate { env, source, specials, kwargs, marked })
    }

    /// The text of a chat, ready for the model. `context` are variables of this chat (`tools`, `documents`, …), which
    /// override those of all chats. `prompt` adds the header after which the assistant answers.
    ///
    /// Errors: those that the template raises; a template that takes too long or writes too much.
    pub fn render(&self, messages: &[Message], context: &Map<String, Value>, prompt: bool) -> Result<String> {
        let mut text = self.render_marked(messages, context, prompt)?;
        text.retain(|c| c != MARK_BEGIN && c != MARK_END);
        Ok(text)
    }

    /// As [`ChatTemplate::render`], with marks around the text inside `{% generation %}` blocks.
    pub(super) fn render_marked(
        &self,
        messages: &[Message],
        context: &Map<String, Value>,
        prompt: bool,
    ) -> Result<String> {
        let messages: Vec<Message> = messages.iter().map(Message::joined).collect::<Result<_>>()?;
        let reserved = |v: &Value| v.to_string().contains([MARK_BEGIN, MARK_END]);
        if messages.iter().any(|m| reserved(&m.content) || m.rest.values().any(reserved))
            || context.values().any(reserved)
        {
            // they would move the loss mask
            let what =
                "a message holds U+FDD0 or U+FDD1, which Unicode reserves for programs: remove them from the data";
            return Err(Error::Usage(what.into()));
        }
        let size = |v: &Value| v.to_string().len();
        let bytes = messages.iter().map(|m| size(&m.content) + m.rest.values().map(size).sum::<usize>()).sum::<usize>()
            + context.values().map(size).sum::<usize>();
        let mut variables: BTreeMap<&str, Jinja> =
            self.specials.iter().map(|(k, v)| (k.as_str(), Jinja::from(v.as_str()))).collect();
        for (k, v) in self.kwargs.iter().chain(context) {
            variables.insert(k, Jinja::from(Serde(v)));
        }
        variables.insert("messages", Jinja::from(Serde(&messages)));
        variables.insert("add_generation_prompt", prompt.into());
        let mut env = self.env.clone();
        env.set_fuel(Some(FUEL + FUEL_PER_BYTE * bytes as u64));
        let mut out = Limited { bytes: Vec::new(), limit: OUTPUT + OUTPUT_PER_BYTE * bytes };
        // the engine is a library and the template a stranger's: a panic there is an error of the template
        let render = || {
            let template = env.get_template("chat").expect("added when compiled");
            template.render_captured_to(variables, &mut out).map(|_| ()).map_err(|e| failure(&e))
        };
        let done = caught(|| within(MEMORY + MEMORY_PER_BYTE * bytes, TOO_MUCH_MEMORY, render));
        let fail = |why: String| Error::Usage(format!("{why} (roles in this chat: {})", roles(&messages)));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(fail(why)),
            Err(panic) => return Err(fail(format!("chat template: the template engine stopped with \"{panic}\""))),
        }
        String::from_utf8(out.bytes).map_err(|_| fail("chat template: its output is not UTF-8".into()))
    }

    /// The Jinja source.
    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// True when the template marks the assistant's text with `{% generation %}`.
    pub(super) fn marks_generation(&self) -> bool {
        self.marked
    }

    /// The special tokens as text.
    pub(super) fn special_tokens(&self) -> impl Iterator<Item = &str> {
        self.specials.iter().map(|s| s.1.as_str()).filter(|s| !s.is_empty())
    }

    /// The text that ends an assistant's turn, such as `<|im_end|>`; `None` when the template writes none.
    pub fn end_of_turn(&self) -> Option<String> {
        const WORDS: &str = "Xyzzy";
        let turns = [Message::new("user", "a"), Message::new(ASSISTANT, WORDS)];
        let text = self.render(&turns, &Map::new(), false).ok()?;
        let end = text.rsplit_once(WORDS)?.1.trim();
        (!end.is_empty()).then(|| end.to_string())
    }
}

/// Replaces transformers' `{% generation %}` blocks, which Jinja does not know, by scopes that write marks. The outer tags
/// keep the whitespace control of the originals.
fn with_marks(source: &str) -> String {
    let replace = |c: &regex::Captures<'_>| {
        let (left, right) = (&c[1], &c[3]);
        match c.get(2) {
            None => format!("{{%{left} with %}}{{{{ '{MARK_BEGIN}' }}}}{{% set _generation = 1 {right}%}}"),
            Some(_) => format!("{{%{left} set _generation = 0 %}}{{{{ '{MARK_END}' }}}}{{% endwith {right}%}}"),
        }
    };
    GENERATION.replace_all(source, replace).into_owned()
}

/// Output up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for Limited {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + data.len() > self.limit {
            return Err(io::Error::other(format!("it writes more than {} bytes", self.limit)));
        }
        self.bytes.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A message for an error while rendering.
fn failure(e: &minijinja::Error) -> String {
    if e.kind() == ErrorKind::OutOfFuel {
        return "chat template: it takes too many steps: it loops, or builds a text that is too long".into();
    }
    problem(e)
}

/// The innermost message, such as that of raise_exception, with the template's line.
fn problem(e: &minijinja::Error) -> String {
    let mut inner: &dyn std::error::Error = e;
    while let Some(next) = inner.source() {
        inner = next;
    }
    let text = match inner.downcast_ref::<minijinja::Error>() {
        Some(e) => e.detail().map_or_else(|| e.kind().to_string(), str::to_string),
        None => inner.to_string(),
    };
    match e.line() {
        Some(line) => format!("chat template, line {line}: {text}"),
        None => format!("chat template: {text}"),
    }
}
