//! The bytes of a rendered chat that the assistant wrote, which is what the loss counts.
//!
//! A template with `{% generation %}` says so itself, and the spans are those of transformers. For any other template the
//! chat is rendered once more with invisible marks inside the messages, which shows where each message's text went,
//! whatever the template moved, stripped or repeated. What the template writes around it is told apart by rendering the
//! chat up to the turn, with and without the generation prompt. Every result is checked: nothing of another role inside a span, everything
//! of the assistant inside one.

use super::message::{ASSISTANT, Chat, Message, roles};
use super::template::{ChatTemplate, MARK_BEGIN, MARK_END};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::Range;

/// First of the characters that stand for messages: a private area of Unicode without meaning.
const FIRST_MARK: u32 = 0xf_0000;
const MARKS: u32 = 0xfffe;

/// Fields of a message that hold text of its author.
const TEXT_FIELDS: [&str; 3] = ["reasoning_content", "reasoning", "thinking"];

/// How densely messages are marked. A template may look at its messages, and a mark in the wrong place changes what it
/// sees: then the next way is tried.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Density {
    /// Around every word that cannot be part of a tag.
    Words,
    /// Around the whole text.
    Ends,
}

/// A rendered chat with the places of its messages' marks.
struct Marked {
    text: String,
    /// (byte in `text`, message), in the order of the text.
    marks: Vec<(usize, usize)>,
}

impl Marked {
    fn last_of(&self, message: usize) -> Option<usize> {
        self.marks.iter().rev().find(|m| m.1 == message).map(|m| m.0)
    }

    /// The marks of an assistant's message by their numbers. One without visible text is where the chat before it ends.
    fn turn(&self, message: usize, before: Option<&Marked>) -> Range<usize> {
        let is_own = |m: &(usize, usize)| m.1 == message;
        if let (Some(first), Some(last)) = (self.marks.iter().position(is_own), self.marks.iter().rposition(is_own)) {
            return first..last + 1;
        }
        let at = before.and_then(|before| {
            let id = before.marks.last()?.1;
            let count = before.marks.iter().filter(|m| m.1 == id).count();
            self.marks.iter().enumerate().filter(|(_, m)| m.1 == id).nth(count - 1).map(|(i, _)| i + 1)
        });
        at.unwrap_or(0)..at.unwrap_or(0)
    }

    /// The text behind the last mark of a message; the whole text for `None`.
    fn tail(&self, message: Option<usize>) -> Option<&str> {
        match message {
            None => Some(&self.text),
            Some(m) => self.last_of(m).map(|at| &self.text[at..]),
        }
    }
}

/// The number of a message, and its bytes in the text.
type Span = (usize, Range<usize>);

/// The text that a template writes around an assistant's turn, from a chat of one question and one answer.
struct Usual {
    /// Header that the generation prompt adds.
    header: String,
    /// Text that ends a turn.
    end: Option<String>,
}

impl ChatTemplate {
    /// The text of a chat and the byte ranges that the assistant wrote, with the text that ends its turns.
    ///
    /// Errors: those of [`ChatTemplate::render`]; roles that the template ignores; a template in which the assistant's text
    /// cannot be told apart, with its line.
    pub fn spans(&self, chat: &Chat) -> Result<(String, Vec<Range<usize>>)> {
        let messages: Vec<Message> = chat.messages.iter().map(Message::joined).collect::<Result<_>>()?;
        let marked = self.render_marked(&messages, &chat.context, false)?;
        let (text, mut generated) = split_generation(&marked);
        self.refuse_unknown_roles(&messages, &text)?;
        let speaks = |list: &[Message]| list.iter().filter(|m| m.role == ASSISTANT).count();
        if self.marks_generation() {
            let prompt = speaks(&messages[..chat.counted_from]);
            if prompt > 0 && generated.len() == speaks(&messages) {
                generated.drain(..prompt);
            } else if prompt > 0 {
                let before = self.render(&messages[..chat.counted_from], &chat.context, false)?;
                let shared = self.common(&text, &before);
                generated.retain(|s| s.start >= shared);
            }
            return Ok((text, generated));
        }
        if speaks(&messages) == 0 {
            return Ok((text, Vec::new()));
        }
        for density in [Density::Words, Density::Ends] {
            if let Some(mut spans) = self.find(&messages, &chat.context, &text, density)? {
                spans.retain(|s| s.0 >= chat.counted_from);
                return Ok((text, spans.into_iter().map(|s| s.1).collect()));
            }
        }
        let line = self.source().lines().position(|l| l.contains(ASSISTANT) || l.contains("role")).unwrap_or(0) + 1;
        Err(Error::Usage(format!(
            "chat template, line {line}: the assistant's text cannot be told apart from the rest, so the loss mask would be \
             wrong: put {{% generation %}} and {{% endgeneration %}} around it in a copy of the template (chat_template), or \
             give the data as prompt and completion"
        )))
    }

    /// An error that lists roles which the template does not know and therefore ignores, such as `human` and `gpt`. The usual
    /// roles may be ignored, as in transformers: many templates do without `tool`.
    fn refuse_unknown_roles(&self, messages: &[Message], text: &str) -> Result<()> {
        let lost = |m: &&Message| {
            let content = m.content.as_str().map(str::trim).unwrap_or_default();
            let usual = ["system", "user", ASSISTANT, "tool"].contains(&m.role.as_str());
            !usual && !content.is_empty() && !self.source().contains(m.role.as_str()) && !text.contains(content)
        };
        let unknown: Vec<Message> = messages.iter().filter(lost).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "chat template: it ignores the roles {}, whose messages would be lost; roles in this chat: {}. Rename them to \
             system, user, assistant or tool",
            roles(&unknown),
            roles(messages)
        )))
    }

    /// The spans with the numbers of their messages, or `None` when the marks change what the template writes or a check
    /// fails.
    fn find(
        &self,
        messages: &[Message],
        context: &Map<String, Value>,
        plain: &str,
        density: Density,
    ) -> Result<Option<Vec<Span>>> {
        let Some(ids) = identities(messages) else { return Ok(None) };
        let with_marks: Vec<Message> = messages.iter().zip(&ids).map(|(m, &id)| mark(m, id, density)).collect();
        // the part up to a turn may be a chat that the template refuses
        let render = |upto: usize, prompt: bool| -> Option<Marked> {
            self.render(&with_marks[..upto], context, prompt).ok().map(|t| read_marks(&t))
        };
        let Some(whole) = render(messages.len(), false).filter(|w| w.text == plain) else { return Ok(None) };
        let usual = self.usual();
        let mut spans: Vec<Span> = Vec::new();
        for (i, _) in messages.iter().enumerate().filter(|(_, m)| m.role == ASSISTANT) {
            let before = render(i, true);
            let own = whole.turn(ids[i], before.as_ref());
            let previous = own.start.checked_sub(1).map(|p| whole.marks[p]);
            // the text between the messages around, and where this one begins and ends in it
            let from = previous.map_or(0, |p| p.0);
            let to = whole.marks.get(own.end).map_or(plain.len(), |m| m.0);
            let visible = !own.is_empty();
            let (first, last) =
                if visible { (whole.marks[own.start].0, whole.marks[own.end - 1].0) } else { (to, from) };

            let gap = &plain[from..first];
            let prompt = before.as_ref().and_then(|b| b.tail(previous.map(|p| p.1)));
            let header = Some(&usual.header).filter(|h| visible && !h.is_empty());
            let known = header.and_then(|h| gap.rfind(h.as_str()).map(|at| at + h.len()));
            let start = match (prompt.map(|tail| self.common(gap, tail)), known) {
                (Some(common), known) => common.max(known.unwrap_or(0)),
                (None, Some(known)) => known,
                // nothing shows where the header ends: count from the first word on
                (None, None) => gap.len(),
            };
            let anchor = if visible { Some(ids[i]) } else { previous.map(|p| p.1) };
            let (closed, open) = (render(i + 1, false), render(i + 1, true));
            let tail = |m: &Option<Marked>| m.as_ref().and_then(|m| m.tail(anchor).map(str::to_string));
            let end_of_turn = match (tail(&closed), tail(&open)) {
                (Some(closed), Some(open)) => closed[..self.common(&closed, &open)].to_string(),
                (Some(closed), None) => closed,
                _ => usual.end.clone().unwrap_or_default(),
            };
            let span = from + start..last + self.common(&plain[last..to], &end_of_turn);
            if !span.is_empty() {
                spans.push((i, span));
            } else if visible {
                return Ok(None);
            }
        }
        let assistant = |id: usize| ids.iter().position(|&x| x == id).is_some_and(|i| messages[i].role == ASSISTANT);
        let inside = |at: usize| spans.iter().any(|(_, s)| s.start <= at && at <= s.end);
        let strictly = |at: usize| spans.iter().any(|(_, s)| s.start < at && at < s.end);
        let right = whole.marks.iter().all(|&(at, id)| if assistant(id) { inside(at) } else { !strictly(at) });
        let apart = spans.windows(2).all(|s| s[0].1.end <= s[1].1.start);
        Ok((right && apart).then_some(spans))
    }

    /// Length of the common beginning of two texts in bytes, which never ends inside a special token or a tag.
    fn common(&self, a: &str, b: &str) -> usize {
        let mut end =
            a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y).map_or(a.len().min(b.len()), |((i, _), _)| i);
        if end == a.len() && end == b.len() {
            return end;
        }
        for token in self.special_tokens() {
            let from = end.saturating_sub(token.len());
            for text in [a, b] {
                let from = (0..=from).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
                if let Some(at) = text[from..].find(token).map(|p| from + p)
                    && at < end
                    && end < at + token.len()
                {
                    end = at;
                }
            }
        }
        // `<|us` of `<|user|>` and `<|us` of another tag
        if let Some(at) = a[..end].rfind(['<', '['])
            && !a[at..end].contains([' ', '\n', '>', ']'])
        {
            end = at;
        }
        end
    }

    fn usual(&self) -> Usual {
        let empty = Map::new();
        let question = [mark(&Message::new("user", "Aa"), 0, Density::Words)];
        let answered = [question[0].clone(), mark(&Message::new(ASSISTANT, "Bb"), 1, Density::Words)];
        let tail = |messages: &[Message], prompt: bool, id: usize| {
            let text = self.render(messages, &empty, prompt).ok()?;
            read_marks(&text).tail(Some(id)).map(str::to_string)
        };
        let header = match (tail(&question, false, 0), tail(&question, true, 0)) {
            (Some(closed), Some(open)) => open[self.common(&open, &closed)..].to_string(),
            _ => String::new(),
        };
        Usual { header, end: tail(&answered, false, 1) }
    }
}

/// The text without the marks of `{% generation %}` blocks, and the ranges inside them.
fn split_generation(marked: &str) -> (String, Vec<Range<usize>>) {
    let mut text = String::with_capacity(marked.len());
    let (mut spans, mut begun) = (Vec::new(), None);
    for c in marked.chars() {
        match c {
            MARK_BEGIN => begun = Some(text.len()),
            MARK_END => {
                if let Some(start) = begun.take().filter(|&s| s < text.len()) {
                    spans.push(start..text.len());
                }
            }
            c => text.push(c),
        }
    }
    (text, spans)
}

/// A number for each message. Messages of other roles that are equal share one, so that a template that compares messages
/// still finds them equal. `None` when the texts hold characters of the marks.
fn identities(messages: &[Message]) -> Option<Vec<usize>> {
    let used = |m: &Message| serde_json::to_string(m).is_ok_and(|t| t.chars().any(|c| mark_of(c).is_some()));
    if messages.len() >= MARKS as usize || messages.iter().any(used) {
        return None;
    }
    let same = |i: usize, m: &Message| {
        if m.role == ASSISTANT { i } else { messages[..i].iter().position(|other| other == m).unwrap_or(i) }
    };
    Some(messages.iter().enumerate().map(|(i, m)| same(i, m)).collect())
}

fn mark_of(c: char) -> Option<usize> {
    (c as u32).checked_sub(FIRST_MARK).filter(|&i| i < MARKS).map(|i| i as usize)
}

/// The text without marks, and their places.
fn read_marks(marked: &str) -> Marked {
    let (mut text, mut marks) = (String::with_capacity(marked.len()), Vec::new());
    for c in marked.chars() {
        match mark_of(c) {
            Some(id) => marks.push((text.len(), id)),
            None => text.push(c),
        }
    }
    Marked { text, marks }
}

/// The message with marks in everything that its author wrote.
fn mark(message: &Message, id: usize, density: Density) -> Message {
    let mut out = message.clone();
    mark_texts(&mut out.content, id, density);
    for (key, value) in out.rest.iter_mut() {
        if TEXT_FIELDS.contains(&key.as_str()) {
            mark_texts(value, id, density);
        }
    }
    for call in out.rest.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        let call = match call.get_mut("function") {
            Some(_) => call.get_mut("function").expect("just found"),
            None => call,
        };
        for key in ["name", "arguments"] {
            if let Some(value) = call.get_mut(key) {
                mark_texts(value, id, density);
            }
        }
    }
    out
}

fn mark_texts(value: &mut Value, id: usize, density: Density) {
    match value {
        Value::String(text) => *text = mark_text(text, id, density),
        Value::Array(list) => list.iter_mut().for_each(|v| mark_texts(v, id, density)),
        Value::Object(map) => map.values_mut().for_each(|v| mark_texts(v, id, density)),
        _ => {}
    }
}

/// Marks go next to words and never to whitespace, which templates strip. Words that templates look for (tags, JSON) get none,
/// unless a text has no other.
fn mark_text(text: &str, id: usize, density: Density) -> String {
    let mark = char::from_u32(FIRST_MARK + id as u32).expect("a character of the private area");
    let safe = |word: &str| !word.contains(['<', '>', '[', ']', '{', '}', '|', '/', '"', '\\']);
    let words = density == Density::Words && text.split_whitespace().any(safe);
    if !words {
        let inner = text.trim();
        if inner.is_empty() {
            return text.to_string();
        }
        let start = inner.as_ptr() as usize - text.as_ptr() as usize;
        return format!("{}{mark}{inner}{mark}{}", &text[..start], &text[start + inner.len()..]);
    }
    let mut out = String::with_capacity(text.len() * 2);
    for piece in text.split_inclusive(char::is_whitespace) {
        let word = piece.trim_end();
        if !word.is_empty() && safe(word) {
            out.extend([mark].iter());
            out.push_str(word);
            out.push(mark);
            out.push_str(&piece[word.len()..]);
        } else {
            out.push_str(piece);
        }
    }
    out
}
