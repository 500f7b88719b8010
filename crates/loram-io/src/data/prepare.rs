//! Records as tokens, with a mark on every token that the loss counts.

use super::format::{Body, Label, Labels, Record};
use crate::chat::{self, ChatTemplate};
use crate::tokenizer::{Encoded, TextTokenizer};
use crate::{Error, Result};
use rayon::prelude::*;
use serde_json::{Map, Value};

/// The target of a text for a head.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// Id of a class.
    Class(usize),
    /// A number.
    Value(f32),
}

/// A text ready for a model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// Tokens.
    pub input_ids: Vec<u32>,
    /// True for each token that the loss counts. Empty for heads.
    pub loss_mask: Vec<bool>,
    /// Segment per token; empty when there is one.
    pub token_type_ids: Vec<u32>,
    /// The target of a head.
    pub target: Option<Target>,
    /// True when the text was truncated.
    pub truncated: bool,
}

impl Example {
    /// Per token the id of the next one where that counts, else −100.
    pub fn labels(&self) -> Vec<i64> {
        let next = |i: usize| match self.loss_mask.get(i + 1) {
            Some(true) => i64::from(self.input_ids[i + 1]),
            _ => -100,
        };
        (0..self.input_ids.len()).map(next).collect()
    }

    /// Number of tokens that the loss counts: the first has nothing before it.
    pub fn counted(&self) -> usize {
        self.loss_mask.iter().skip(1).filter(|&&c| c).count()
    }

    /// Number of units that the loss of the example is a sum over: itself when it has a target, else its counted tokens.
    pub fn units(&self) -> usize {
        if self.target.is_some() { 1 } else { self.counted() }
    }
}

/// A piece of a rendered example.
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
    /// Longest example in tokens.
    pub longest: usize,
}

/// Turns records into examples.
pub struct Preparer {
    tokenizer: TextTokenizer,
    /// Compiled when a record first needs it.
    template: std::sync::OnceLock<std::result::Result<ChatTemplate, String>>,
    chat_template: Option<String>,
    /// Variables of the chat template for all records, e.g. `enable_thinking`.
    pub chat_template_kwargs: Map<String, Value>,
    /// Longest example in tokens; longer ones lose their end.
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
        let made: Vec<Vec<Example>> = records.par_iter().map(|r| self.prepare(r)).collect::<Result<_>>()?;
        let mut report = PrepareReport::default();
        let mut out = Vec::new();
        for e in made.into_iter().flatten() {
            if self.max_examples.is_some_and(|n| out.len() >= n) {
                break;
            }
            if e.units() == 0 {
                report.dropped += 1;
                continue;
            }
            report.examples += 1;
            report.tokens += e.input_ids.len();
            report.counted += e.units();
            report.truncated += usize::from(e.truncated);
            report.longest = report.longest.max(e.input_ids.len());
            out.push(e);
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

    /// The examples of a record: one, or for a stream as many as it takes.
    pub fn prepare(&self, record: &Record) -> Result<Vec<Example>> {
        let t = &self.tokenizer;
        match &record.body {
            Body::Text(text) => {
                let mut ids = t.encode(text, true)?.ids;
                self.end(&mut ids);
                let mask = vec![true; ids.len()];
                Ok(vec![self.cut(ids, mask)])
            }
            Body::Stream(text) => {
                let mut ids = t.encode(text, true)?.ids;
                self.end(&mut ids);
                let pieces = ids.chunks(self.max_length.max(2));
                Ok(pieces.map(|p| self.cut(p.to_vec(), vec![true; p.len()])).collect())
            }
            Body::PromptCompletion { prompt, completion } => {
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
            Body::Messages(chat) => {
                let template = self.template().map_err(|e| at(record, e))?;
                let (text, spans) = template.spans(chat).map_err(|e| at(record, e))?;
                if spans.is_empty() && self.completion_only {
                    let what = format!(
                        "no text of the role `assistant`, so there is nothing to learn; the roles are {}",
                        chat::roles(&chat.messages)
                    );
                    return Err(Error::Data { at: record.at.clone(), what });
                }
                let Encoded { ids, offsets, .. } = t.encode(&text, false)?;
                let within = |o: &(usize, usize)| spans.iter().any(|s| o.0 < s.end && o.1 > s.start);
                let mask = offsets.iter().map(|o| !self.completion_only || within(o)).collect();
                Ok(vec![self.cut(ids, mask)])
            }
            Body::Labelled { text, pair, label } => {
                let (e, truncated) = t.encode_cut(text, pair.as_deref(), self.max_length)?;
                if e.ids.is_empty() {
                    return Err(Error::Data { at: record.at.clone(), what: "the text is empty".into() });
                }
                let target = match label {
                    Label::Value(v) => Target::Value(*v),
                    other => Target::Class(self.labels.id(other, &record.at)?),
                };
                let token_type_ids = if e.type_ids.iter().any(|&t| t != 0) { e.type_ids } else { Vec::new() };
                Ok(vec![Example {
                    input_ids: e.ids,
                    token_type_ids,
                    target: Some(target),
                    truncated,
                    ..Default::default()
                }])
            }
        }
    }

    fn end(&self, ids: &mut Vec<u32>) {
        if let Some(eos) = self.tokenizer.eos_id().filter(|e| ids.last() != Some(e)) {
            ids.push(eos);
        }
    }

    fn cut(&self, mut ids: Vec<u32>, mut mask: Vec<bool>) -> Example {
        let truncated = ids.len() > self.max_length;
        ids.truncate(self.max_length);
        mask.truncate(self.max_length);
        Example { input_ids: ids, loss_mask: mask, truncated, ..Default::default() }
    }

    /// The example as text, cut where the loss starts and stops counting.
    pub fn render(&self, example: &Example) -> Result<Vec<Span>> {
        let counted = |i: usize| example.loss_mask.get(i).copied().unwrap_or(false);
        let ids = &example.input_ids;
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

fn at(record: &Record, e: Error) -> Error {
    Error::Data { at: record.at.clone(), what: e.to_string() }
}
