//! Records as tokens, with a mark on every token that the loss counts.

use super::example::{Example, Sequence, Target};
use super::record::{Label, Labels, Record, Text};
use crate::chat::{self, ChatTemplate};
use crate::tokenizer::{Encoded, TextTokenizer};
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::{Map, Value};

/// A piece of a rendered sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Text.
    pub text: String,
    /// True when the loss counts it.
    pub counted: bool,
}

/// Sums over a prepared data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PrepareReport {
    /// Examples that remain.
    pub examples: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that the loss counts (texts, for heads).
    pub counted: usize,
    /// Examples that were cut at `max_length`.
    pub truncated: usize,
    /// Examples left out because nothing in them counts.
    pub dropped: usize,
    /// Longest sequence in tokens.
    pub longest: usize,
}

impl PrepareReport {
    /// Adds the counts of other examples.
    pub fn add(&mut self, other: PrepareReport) {
        self.examples += other.examples;
        self.tokens += other.tokens;
        self.counted += other.counted;
        self.truncated += other.truncated;
        self.dropped += other.dropped;
        self.longest = self.longest.max(other.longest);
    }
}

/// Records that are tokenised at a time, on all threads.
const GROUP: usize = 4096;

/// Turns records into examples.
pub struct Preparer {
    tokenizer: TextTokenizer,
    /// Compiled when a record first needs it.
    template: std::sync::OnceLock<std::result::Result<ChatTemplate, String>>,
    chat_template: Option<String>,
    /// Variables of the chat template for all records, e.g. `enable_thinking`.
    pub chat_template_kwargs: Map<String, Value>,
    /// Longest sequence in tokens; longer ones lose their end.
    pub max_length: usize,
    /// Make only the first so many examples of all records: a document of a text file alone makes many.
    pub max_examples: Option<usize>,
    /// With a prompt: count the completion alone.
    pub completion_only: bool,
    /// Classes, for labelled records.
    pub labels: Labels,
}

impl Preparer {
    /// A preparer for a tokenizer. `chat_template` replaces the model's own.
    pub fn new(tokenizer: TextTokenizer, max_length: usize, chat_template: Option<String>) -> Preparer {
        let labels = Labels::default();
        Preparer {
            tokenizer,
            template: Default::default(),
            chat_template,
            chat_template_kwargs: Map::new(),
            max_length,
            max_examples: None,
            completion_only: true,
            labels,
        }
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The chat template.
    pub fn template(&self) -> Result<&ChatTemplate> {
        let make = || {
            ChatTemplate::new(&self.tokenizer, self.chat_template.as_deref(), &self.chat_template_kwargs)
                .map_err(|e| e.to_string())
        };
        self.template.get_or_init(make).as_ref().map_err(|e| Error::Usage(e.clone()))
    }

    /// All examples, in order. Those in which nothing counts are left out; an error when that is all of them.
    pub fn prepare_all(&self, records: &[Record]) -> Result<(Vec<Example>, PrepareReport)> {
        self.prepare_with(records, &mut |_| {})
    }

    /// The same; `progress` gets the number of records that are done.
    pub fn prepare_with(
        &self,
        records: &[Record],
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Vec<Example>, PrepareReport)> {
        let mut report = PrepareReport::default();
        let mut out = Vec::new();
        for (i, group) in records.chunks(GROUP).enumerate() {
            progress(i * GROUP);
            let made: Vec<Vec<Example>> = group.par_iter().map(|r| self.prepare(r)).collect::<Result<_>>()?;
            self.keep(made.into_iter().flatten(), &mut out, &mut report);
            if self.max_examples.is_some_and(|n| out.len() >= n) {
                break;
            }
        }
        if out.is_empty() {
            let at = records.first().map_or_else(|| "data".to_string(), |r| r.at.clone());
            let what = format!(
                "no token counts in any of the {} records: completions are empty, or all is cut off at max_length {}",
                records.len(),
                self.max_length
            );
            return Err(Error::Data { at, what });
        }
        Ok((out, report))
    }

    /// Keeps the examples in which something counts, and counts them.
    fn keep(&self, made: impl Iterator<Item = Example>, out: &mut Vec<Example>, report: &mut PrepareReport) {
        for e in made {
            if self.max_examples.is_some_and(|n| out.len() >= n) {
                break;
            }
            if e.lacks_counted() {
                report.dropped += 1;
                continue;
            }
            report.examples += 1;
            report.tokens += e.tokens();
            report.counted += e.units();
            report.truncated += usize::from(e.truncated());
            report.longest = e.sequences.iter().map(|s| s.input_ids.len()).fold(report.longest, usize::max);
            out.push(e);
        }
    }

    /// The examples of a record: one, or for a document as many as it takes.
    pub fn prepare(&self, record: &Record) -> Result<Vec<Example>> {
        if let ([Text::Words(words)], Some(Label::Tags(tags))) = (&record.texts[..], &record.label) {
            return Ok(vec![self.tagged(words, tags, &record.at)?]);
        }
        let mut sequences = Vec::new();
        if record.is_preference() {
            sequences = self.answers(&record.texts, &record.at)?;
        } else {
            for text in &record.texts {
                sequences.extend(self.sequences(text, &record.at)?);
            }
        }
        let target = match &record.label {
            None => None,
            Some(Label::Value(v)) => Some(Target::Value(*v)),
            Some(Label::Several(labels)) => {
                let mut holds = vec![false; self.labels.names.len()];
                for label in labels {
                    holds[self.labels.id(label, &record.at)?] = true;
                }
                Some(Target::Classes(holds))
            }
            Some(Label::Flags(flags)) => match (flags.len(), self.labels.names.len()) {
                (n, known) if n == known => Some(Target::Classes(flags.clone())),
                (n, known) => {
                    let what = format!("field `labels`: {n} values, one for each label, but there are {known} labels");
                    return Err(Error::Data { at: record.at.clone(), what });
                }
            },
            Some(Label::Desirable(yes)) => Some(Target::Desirable(*yes)),
            Some(other) => Some(Target::Class(self.labels.id(other, &record.at)?)),
        };
        Ok(match record.texts.len() {
            1 => sequences.into_iter().map(|s| Example { target: target.clone(), ..Example::of(s) }).collect(),
            _ => vec![Example { sequences, target, ..Example::default() }],
        })
    }

    /// Answers to one prompt. As in TRL, an answer begins where the tokens of prompt and answer leave those of the prompt alone, at
    /// the same place in all answers, and everything after that counts.
    fn answers(&self, texts: &[Text], at: &str) -> Result<Vec<Sequence>> {
        let t = &self.tokenizer;
        let named = |e: Error| Error::Data { at: at.to_string(), what: e.to_string() };
        let tokens = |text: &Text| -> Result<(usize, Vec<u32>)> {
            let (prompt, all) = match text {
                Text::PromptCompletion { prompt, completion } => {
                    let mut all = t.encode(&format!("{prompt}{completion}"), true)?.ids;
                    self.end(&mut all);
                    (t.encode(prompt, true)?.ids, all)
                }
                Text::Chat(chat) => {
                    let template = self.template().map_err(named)?;
                    let tokens = |turns, prompt| -> Result<Vec<u32>> {
                        Ok(t.encode(&template.render(turns, &chat.context, prompt).map_err(named)?, false)?.ids)
                    };
                    let prompt = match chat.counted_from {
                        0 => Vec::new(),
                        n => tokens(&chat.messages[..n], true)?,
                    };
                    (prompt, tokens(&chat.messages, false)?)
                }
                other => {
                    return self.sequences(other, at).map(|s| (0, s.into_iter().flat_map(|s| s.input_ids).collect()));
                }
            };
            Ok((prompt.iter().zip(&all).take_while(|(a, b)| a == b).count(), all))
        };
        let made = texts.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let prompt = made.iter().map(|m| m.0).min().unwrap_or(0);
        let sequence = |(_, ids): (usize, Vec<u32>)| {
            let mask = (0..ids.len()).map(|i| i >= prompt).collect();
            self.cut(ids, mask)
        };
        Ok(made.into_iter().map(sequence).collect())
    }

    /// Words with a label each: the first token of a word has it, as in transformers' `run_ner`.
    fn tagged(&self, words: &[String], tags: &[Label], at: &str) -> Result<Example> {
        let (e, of_word, truncated) = self.tokenizer.encode_words(words, self.max_length)?;
        let ids = tags.iter().map(|tag| self.labels.id(tag, at)).collect::<Result<Vec<_>>>()?;
        let first = |(i, word): (usize, &Option<usize>)| match word {
            Some(w) if i == 0 || of_word[i - 1] != *word => ids.get(*w).map_or(-100, |&id| id as i64),
            _ => -100,
        };
        let target = Some(Target::Tags(of_word.iter().enumerate().map(first).collect()));
        Ok(Example { target, ..Example::of(input(e, truncated)) })
    }

    /// A text as tokens: one sequence, or for a document as many as it takes.
    fn sequences(&self, text: &Text, at: &str) -> Result<Vec<Sequence>> {
        let t = &self.tokenizer;
        let named = |e: Error| Error::Data { at: at.to_string(), what: e.to_string() };
        match text {
            Text::Plain(text) => {
                let mut ids = t.encode_long(text, true)?;
                self.end(&mut ids);
                let mask = vec![true; ids.len()];
                Ok(vec![self.cut(ids, mask)])
            }
            Text::Document(text) => {
                let mut ids = t.encode_long(text, true)?;
                self.end(&mut ids);
                let pieces = ids.chunks(self.max_length.max(2));
                Ok(pieces.map(|p| self.cut(p.to_vec(), vec![true; p.len()])).collect())
            }
            Text::PromptCompletion { prompt, completion } => {
                let e = t.encode(&format!("{prompt}{completion}"), true)?;
                // a token across the border says something of the completion
                let counts = |o: &(usize, usize)| !self.completion_only || o.1 > prompt.len();
                let mut mask: Vec<bool> = e.offsets.iter().map(counts).collect();
                let mut ids = e.ids;
                self.end(&mut ids);
                // what a tokenizer adds at the end (EOS) is learnt like the EOS that we add
                let tail = e.offsets.iter().rev().take_while(|o| o.0 == o.1).count();
                let from = mask.len() - tail;
                mask[from..].fill(true);
                mask.resize(ids.len(), true);
                Ok(vec![self.cut(ids, mask)])
            }
            Text::Chat(chat) => {
                let template = self.template().map_err(named)?;
                let (text, spans) = template.spans(chat).map_err(named)?;
                if spans.is_empty() && self.completion_only {
                    let what = format!(
                        "no text of the role `assistant`, so there is nothing to learn; the roles are {}",
                        chat::roles(&chat.messages)
                    );
                    return Err(Error::Data { at: at.to_string(), what });
                }
                let Encoded { ids, offsets, .. } = t.encode(&text, false)?;
                let within = |o: &(usize, usize)| spans.iter().any(|s| o.0 < s.end && o.1 > s.start);
                let mask = offsets.iter().map(|o| !self.completion_only || within(o)).collect();
                Ok(vec![self.cut(ids, mask)])
            }
            Text::Input { text, pair } => {
                let (e, truncated) = t.encode_cut(text, pair.as_deref(), self.max_length)?;
                if e.ids.is_empty() {
                    return Err(Error::Data { at: at.to_string(), what: "the text is empty".into() });
                }
                Ok(vec![input(e, truncated)])
            }
            Text::Words(_) => Err(Error::Data { at: at.to_string(), what: "the words have no labels".into() }),
        }
    }

    fn end(&self, ids: &mut Vec<u32>) {
        if let Some(eos) = self.tokenizer.eos_id().filter(|e| ids.last() != Some(e)) {
            ids.push(eos);
        }
    }

    fn cut(&self, mut ids: Vec<u32>, mut mask: Vec<bool>) -> Sequence {
        let truncated = ids.len() > self.max_length;
        ids.truncate(self.max_length);
        mask.truncate(self.max_length);
        Sequence { input_ids: ids, loss_mask: mask, truncated, ..Default::default() }
    }

    /// A sequence as text, cut where the loss starts and stops counting.
    pub fn render(&self, sequence: &Sequence) -> Result<Vec<Span>> {
        let counted = |i: usize| sequence.loss_mask.get(i).copied().unwrap_or(false);
        let ids = &sequence.input_ids;
        let mut spans = Vec::new();
        let mut start = 0;
        while start < ids.len() {
            let end = (start..ids.len()).find(|&i| counted(i) != counted(start)).unwrap_or(ids.len());
            spans.push(Span { text: self.tokenizer.decode(&ids[start..end], false)?, counted: counted(start) });
            start = end;
        }
        Ok(spans)
    }
}

/// The input of a head.
fn input(e: Encoded, truncated: bool) -> Sequence {
    let token_type_ids = if e.type_ids.iter().any(|&t| t != 0) { e.type_ids } else { Vec::new() };
    Sequence { input_ids: e.ids, token_type_ids, truncated, ..Default::default() }
}
