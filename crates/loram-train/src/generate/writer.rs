//! From the logits of a model to a text: one token after another, until the text ends.

use super::options::{Finish, GenerateOptions, Generated};
use crate::sampling::Sampler;
use crate::{Error, Result};
use loram_io::tokenizer::{StreamDecoder, TextTokenizer};
use loram_nn::{TokenLogProb, log_prob};

/// A text that is being generated.
pub(super) struct Writer<'a> {
    options: GenerateOptions,
    sampler: Sampler,
    decoder: StreamDecoder<'a>,
    prompt_tokens: usize,
    ids: Vec<u32>,
    text: String,
    /// Bytes of the text that the caller has received.
    shown: usize,
    /// Tokens that may be generated.
    room: usize,
    finish: Option<Finish>,
    logprobs: Vec<TokenLogProb>,
}

impl<'a> Writer<'a> {
    /// A text behind `prompt_tokens` tokens. An error when these leave no room for an answer.
    pub fn new(tokenizer: &'a TextTokenizer, prompt_tokens: usize, options: &GenerateOptions) -> Result<Writer<'a>> {
        let room = options.max_length.saturating_sub(prompt_tokens);
        if room == 0 {
            return Err(Error::Data(format!(
                "the prompt has {prompt_tokens} tokens, the model takes {} together with its answer",
                options.max_length
            )));
        }
        let room = room.min(options.max_new_tokens);
        Ok(Writer {
            options: options.clone(),
            sampler: Sampler::new(&options.sampling),
            decoder: tokenizer.stream(),
            prompt_tokens,
            ids: Vec::new(),
            text: String::new(),
            shown: 0,
            room,
            finish: (room == 0).then_some(Finish::Length),
            logprobs: Vec::new(),
        })
    }

    /// Chooses the next token from the logits after `seen`; returns it where the model is to be fed with it, `None` at the end of
    /// the text.
    pub fn next(
        &mut self,
        logits: &mut [f32],
        seen: &[u32],
        stream: &mut dyn FnMut(&str) -> bool,
    ) -> Result<Option<u32>> {
        if self.finish.is_some() {
            return Ok(None);
        }
        let before = self.options.logprobs.map(|top| (top, logits.to_vec()));
        let id = self.sampler.next(logits, seen);
        self.logprobs.extend(before.map(|(top, logits)| log_prob(&logits, id, top)));
        if self.options.eos.contains(&id) {
            self.finish = Some(Finish::Eos);
            return Ok(None);
        }
        self.ids.push(id);
        self.text.push_str(&self.decoder.push(id)?);
        let new = &self.text[self.shown..];
        if let Some(end) = self.options.stop.iter().filter_map(|s| new.find(s.as_str())).min() {
            self.text.truncate(self.shown + end);
            self.finish = Some(Finish::Eos);
            return Ok(None);
        }
        let held = self.options.stop.iter().map(|s| begun(new, s)).max().unwrap_or(0);
        let safe = self.text.len() - held;
        if safe > self.shown && !stream(&self.text[self.shown..safe]) {
            self.finish = Some(Finish::Stopped);
        }
        self.shown = self.shown.max(safe);
        if self.finish.is_none() && self.ids.len() == self.room {
            self.finish = Some(Finish::Length);
        }
        Ok(self.finish.is_none().then_some(id))
    }

    /// The text, of which the last piece goes to `stream`.
    pub fn finish(self, stream: &mut dyn FnMut(&str) -> bool) -> Result<Generated> {
        let Writer { options, decoder, mut text, shown, logprobs, .. } = self;
        let finish = self.finish.unwrap_or(Finish::Stopped);
        if finish != Finish::Eos || options.stop.is_empty() {
            text.push_str(&decoder.finish()?);
        }
        if finish != Finish::Stopped && text.len() > shown {
            stream(&text[shown..]);
        }
        Ok(Generated { text, token_ids: self.ids, prompt_tokens: self.prompt_tokens, finish, logprobs })
    }
}

/// Bytes at the end of `text` with which `stop` may have begun.
fn begun(text: &str, stop: &str) -> usize {
    let prefixes = stop.char_indices().map(|(i, _)| i).skip(1);
    prefixes.filter(|&i| text.ends_with(&stop[..i])).max().unwrap_or(0)
}
