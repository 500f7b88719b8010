//! Text generation and chat.

use crate::sampling::{Sampler, Sampling};
use crate::{Error, Result};
use loram_io::chat::{ChatTemplate, Message};
use loram_io::config::GenerationConfig;
use loram_io::tokenizer::TextTokenizer;
use loram_nn::{Generator, Model};
use serde::Serialize;
use serde_json::{Map, Value};

/// Settings of a generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// How tokens are sampled.
    pub sampling: Sampling,
    /// Maximum number of new tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub eos: Vec<u32>,
    /// Texts that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Maximum length in tokens, including the prompt.
    pub max_length: usize,
}

impl GenerateOptions {
    /// Greedy, with the ends of text that the model and its tokenizer name.
    pub fn greedy(tokenizer: &TextTokenizer, generation: &GenerationConfig, max_length: usize) -> GenerateOptions {
        let mut eos = generation.eos_token_ids.clone();
        eos.extend(tokenizer.eos_id().filter(|id| !generation.eos_token_ids.contains(id)));
        GenerateOptions { sampling: Sampling::default(), max_new_tokens: 256, eos, stop: Vec::new(), max_length }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model generated an end token or a stop text.
    Eos,
    /// `max_new_tokens` or the model's maximum length was reached.
    Length,
    /// The caller asked to stop.
    Stopped,
}

/// A generated text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Generated {
    /// The generated text, without the prompt.
    pub text: String,
    /// Its tokens.
    pub token_ids: Vec<u32>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// Continues `prompt` (at least one token) in a generator, whose tokens so far are kept. `stream` gets the text piece by
/// piece and says whether to go on.
pub fn continue_tokens(
    generator: &mut Generator<'_>,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    options: &GenerateOptions,
    stream: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated> {
    let room = options.max_length.saturating_sub(generator.tokens().len() + prompt.len());
    if room == 0 {
        return Err(Error::Data(format!(
            "the prompt has {} tokens, the model takes {} together with its answer",
            generator.tokens().len() + prompt.len(),
            options.max_length
        )));
    }
    let mut sampler = Sampler::new(&options.sampling);
    let mut decoder = tokenizer.stream();
    let mut ids = Vec::new();
    let mut text = String::new();
    // bytes of the text that the caller has received
    let mut shown = 0;
    let mut logits = generator.feed(prompt)?;
    let mut finish = Finish::Length;
    while ids.len() < options.max_new_tokens.min(room) {
        let id = sampler.next(&mut logits, generator.tokens());
        if options.eos.contains(&id) {
            finish = Finish::Eos;
            break;
        }
        ids.push(id);
        text.push_str(&decoder.push(id)?);
        if let Some(end) = options.stop.iter().filter_map(|s| text[shown..].find(s.as_str())).min() {
            text.truncate(shown + end);
            finish = Finish::Eos;
            break;
        }
        let safe = text.len() - options.stop.iter().map(|s| begun(&text[shown..], s)).max().unwrap_or(0);
        if safe > shown && !stream(&text[shown..safe]) {
            shown = safe;
            finish = Finish::Stopped;
            break;
        }
        shown = shown.max(safe);
        if ids.len() < options.max_new_tokens.min(room) {
            logits = generator.feed(&[id])?;
        }
    }
    if finish != Finish::Eos || options.stop.is_empty() {
        text.push_str(&decoder.finish()?);
    }
    if finish != Finish::Stopped && text.len() > shown {
        stream(&text[shown..]);
    }
    Ok(Generated { text, token_ids: ids, prompt_tokens: prompt.len(), finish })
}

/// Bytes at the end of `text` with which `stop` may have begun.
fn begun(text: &str, stop: &str) -> usize {
    let prefixes = stop.char_indices().map(|(i, _)| i).skip(1);
    prefixes.filter(|&i| text.ends_with(&stop[..i])).max().unwrap_or(0)
}

/// Continues a text. Special tokens that the tokenizer puts before a text are added, those behind it are not.
pub fn generate(
    model: &Model,
    tokenizer: &TextTokenizer,
    prompt: &str,
    options: &GenerateOptions,
    stream: &mut dyn FnMut(&str) -> bool,
) -> Result<Generated> {
    let ids = prompt_ids(tokenizer, prompt)?;
    continue_tokens(&mut model.generator()?, tokenizer, &ids, options, stream)
}

/// Ids of a prompt: with the tokenizer's own BOS where it adds one, and never with an end of text.
pub fn prompt_ids(tokenizer: &TextTokenizer, prompt: &str) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(prompt, true)?.ids;
    let plain = tokenizer.encode(prompt, false)?.ids;
    if ids.len() > plain.len() && ids.last() == tokenizer.eos_id().as_ref() && plain.last() != ids.last() {
        ids.pop();
    }
    if ids.is_empty() {
        // a text needs a first token
        match tokenizer.bos_id().or(tokenizer.eos_id()) {
            Some(id) => ids.push(id),
            None => {
                return Err(Error::Data(
                    "the prompt is empty, and the tokenizer has no BOS token to begin with".into(),
                ));
            }
        }
    }
    Ok(ids)
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
        let end = match template.end_of_turn() {
            None => (None, None),
            Some(text) => match tokenizer.encode(&text, false)?.ids[..] {
                [id] => (Some(id), None),
                _ => (None, Some(text)),
            },
        };
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
