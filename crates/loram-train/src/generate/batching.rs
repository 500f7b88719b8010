//! Continuous batching: texts are generated together, and one that ends makes room for the next at once. A pass over the model reads
//! each weight once for all texts.

use super::options::{GenerateOptions, Generated};
use super::writer::Writer;
use crate::Result;
use loram_io::tokenizer::TextTokenizer;
use loram_nn::{Generator, Model, feed_all};
use std::collections::VecDeque;

/// Tokens of prompts that one pass takes, beyond the first prompt: longer passes only delay the texts that are being written.
const PROMPT_TOKENS: usize = 2048;

/// Sequences that have ended and whose caches are kept: a chat goes on where it ended.
const KEPT: usize = 4;

/// A text to generate.
pub struct Work {
    /// The caller's name for it.
    pub id: usize,
    /// At least one token.
    pub prompt: Vec<u32>,
    /// Settings.
    pub options: GenerateOptions,
    /// Gets the text piece by piece and says whether to go on.
    pub stream: Box<dyn FnMut(&str) -> bool>,
}

/// Texts that are generated together.
pub struct Batching<'a> {
    model: &'a Model,
    tokenizer: &'a TextTokenizer,
    waiting: VecDeque<Work>,
    active: Vec<Active<'a>>,
    /// The latest last.
    kept: Vec<Generator<'a>>,
    most: usize,
}

struct Active<'a> {
    id: usize,
    generator: Generator<'a>,
    writer: Writer<'a>,
    /// Tokens to feed next.
    next: Vec<u32>,
    stream: Box<dyn FnMut(&str) -> bool>,
}

impl<'a> Batching<'a> {
    /// No texts yet; at most `most` will be generated at a time.
    pub fn new(model: &'a Model, tokenizer: &'a TextTokenizer, most: usize) -> Batching<'a> {
        Batching { model, tokenizer, waiting: VecDeque::new(), active: Vec::new(), kept: Vec::new(), most: most.max(1) }
    }

    /// Queues a text.
    pub fn add(&mut self, work: Work) {
        self.waiting.push_back(work);
    }

    /// Number of texts that are not finished.
    pub fn len(&self) -> usize {
        self.waiting.len() + self.active.len()
    }

    /// True when there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One pass: a token more for each text. Returns the texts that ended, and those that failed, with their names.
    pub fn step(&mut self) -> Vec<(usize, Result<Generated>)> {
        let mut ended = Vec::new();
        self.admit(&mut ended);
        let mut fed: Vec<(&mut Generator<'a>, &[u32])> =
            self.active.iter_mut().map(|a| (&mut a.generator, &a.next[..])).collect();
        let all = match feed_all(&mut fed) {
            Ok(all) => all,
            Err(_) => {
                // one of them is at fault; the others go on
                self.one_by_one(&mut ended);
                return ended;
            }
        };
        let active = std::mem::take(&mut self.active);
        for (text, logits) in active.into_iter().zip(all) {
            self.advance(text, logits, &mut ended);
        }
        ended
    }

    fn one_by_one(&mut self, ended: &mut Vec<(usize, Result<Generated>)>) {
        for mut text in std::mem::take(&mut self.active) {
            // what the failed pass left in its caches
            text.generator.truncate(text.generator.tokens().len());
            match text.generator.feed(&text.next) {
                Ok(logits) => self.advance(text, logits, ended),
                Err(e) => ended.push((text.id, Err(e.into()))),
            }
        }
    }

    /// Lets a text choose its next token.
    fn advance(&mut self, mut text: Active<'a>, mut logits: Vec<f32>, ended: &mut Vec<(usize, Result<Generated>)>) {
        match text.writer.next(&mut logits, text.generator.tokens(), &mut text.stream) {
            Ok(Some(id)) => {
                text.next.clear();
                text.next.push(id);
                self.active.push(text);
            }
            Ok(None) => {
                let Active { id, generator, writer, mut stream, .. } = text;
                self.kept.push(generator);
                if self.kept.len() > KEPT {
                    self.kept.remove(0);
                }
                ended.push((id, writer.finish(&mut stream)));
            }
            Err(e) => ended.push((text.id, Err(e))),
        }
    }

    /// Starts texts that wait, while there is room.
    fn admit(&mut self, ended: &mut Vec<(usize, Result<Generated>)>) {
        let mut tokens = 0;
        while self.active.len() < self.most && tokens < PROMPT_TOKENS {
            let Some(work) = self.waiting.pop_front() else { return };
            let id = work.id;
            match self.begin(work) {
                Ok(text) => {
                    tokens += text.next.len();
                    self.active.push(text);
                }
                Err(e) => ended.push((id, Err(e))),
            }
        }
    }

    fn begin(&mut self, work: Work) -> Result<Active<'a>> {
        let Work { id, prompt, options, stream } = work;
        let writer = Writer::new(self.tokenizer, prompt.len(), &options)?;
        // one that begins with the same tokens; at least one is fed, for its logits
        let same = |g: &Generator<'_>| {
            g.tokens().iter().zip(&prompt[..prompt.len().max(1) - 1]).take_while(|(a, b)| a == b).count()
        };
        let best = self.kept.iter().enumerate().map(|(i, g)| (same(g), i)).max().filter(|(n, _)| *n > 0);
        let (known, generator) = match best {
            Some((n, i)) => {
                let mut generator = self.kept.remove(i);
                generator.truncate(n);
                (n, generator)
            }
            None => (0, self.model.generator()?),
        };
        Ok(Active { id, generator, writer, next: prompt[known..].to_vec(), stream })
    }
}

/// Continues prompts of at least one token each, `most` at a time; `done` gets each text with its index as it ends, and says whether to go
/// on.
///
/// # Errors
/// The first error of a prompt, or of `done`.
pub fn generate_all(
    model: &Model,
    tokenizer: &TextTokenizer,
    prompts: impl IntoIterator<Item = (Vec<u32>, GenerateOptions)>,
    most: usize,
    done: &mut dyn FnMut(usize, Generated) -> Result<()>,
) -> Result<()> {
    let mut batching = Batching::new(model, tokenizer, most);
    for (id, (prompt, options)) in prompts.into_iter().enumerate() {
        batching.add(Work { id, prompt, options, stream: Box::new(|_| true) });
    }
    while !batching.is_empty() {
        for (id, made) in batching.step() {
            done(id, made?)?;
        }
    }
    Ok(())
}
