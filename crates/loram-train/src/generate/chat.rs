//! Chats.

use super::options::{GenerateOptions, Generated};
use super::single::continue_tokens;
use crate::{Error, Result};
use loram_io::chat::{ChatTemplate, Message};
use loram_io::tokenizer::TextTokenizer;
use loram_nn::{Generator, Model};
use serde_json::{Map, Value};

/// The end of a turn in a template: one token, or a text when the tokenizer has no token for it.
pub fn end_of_turn(template: &ChatTemplate, tokenizer: &TextTokenizer) -> Result<(Option<u32>, Option<String>)> {
    let Some(text) = template.end_of_turn() else { return Ok((None, None)) };
    Ok(match tokenizer.encode(&text, false)?.ids[..] {
        [id] => (Some(id), None),
        _ => (None, Some(text)),
    })
}

/// A chat with a model: the cache keeps what both said, so that only new words are computed.
pub struct Chat<'a> {
    generator: Generator<'a>,
    tokenizer: &'a TextTokenizer,
    template: ChatTemplate,
    messages: Vec<Message>,
    /// The end of a turn: one token, or a text when the tokenizer has no token for it.
    end: (Option<u32>, Option<String>),
}

impl<'a> Chat<'a> {
    /// Starts a chat, with the model's template or another one (text, file or `chatml`), the template's variables, and a
    /// system message if given.
    pub fn new(
        model: &'a Model,
        tokenizer: &'a TextTokenizer,
        template: Option<&str>,
        kwargs: &Map<String, Value>,
        system: Option<&str>,
    ) -> Result<Chat<'a>> {
        let template = ChatTemplate::new(tokenizer, template, kwargs)?;
        let messages = system.map(|s| Message::new("system", s)).into_iter().collect();
        let end = end_of_turn(&template, tokenizer)?;
        Ok(Chat { generator: model.generator()?, tokenizer, template, messages, end })
    }

    /// The messages so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Sends a user message and returns the answer. On an error the chat is unchanged.
    pub fn say(
        &mut self,
        text: &str,
        options: &GenerateOptions,
        stream: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Generated> {
        self.messages.push(Message::new("user", text));
        let answer = self.answer(options, stream);
        match &answer {
            Ok(a) => self.messages.push(Message::new("assistant", &a.text)),
            Err(_) => drop(self.messages.pop()),
        }
        answer
    }

    fn answer(&mut self, options: &GenerateOptions, stream: &mut dyn FnMut(&str) -> bool) -> Result<Generated> {
        let prompt = self.template.render(&self.messages, &Default::default(), true)?;
        // the template writes the special tokens itself
        let ids = self.tokenizer.encode(&prompt, false)?.ids;
        if ids.is_empty() {
            return Err(Error::Data("the chat template renders these messages as an empty prompt".into()));
        }
        let known = self.generator.tokens();
        // at least one token must be computed to have logits
        let same = known.iter().zip(&ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
        self.generator.truncate(same);
        let mut options = options.clone();
        options.eos.extend(self.end.0);
        options.stop.extend(self.end.1.clone());
        let mut out = continue_tokens(&mut self.generator, self.tokenizer, &ids[same..], &options, stream)?;
        out.prompt_tokens = ids.len();
        Ok(out)
    }
}
