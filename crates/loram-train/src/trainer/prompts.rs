//! Samples that are generated before and after training.

use super::setup::Setup;
use crate::Result;
use crate::base::{Base, stage};
use crate::config::{SamplePrompts, TrainConfig};
use crate::dataset::Dataset;
use crate::generate::{GenerateOptions, continue_tokens, prompt_ids};
use crate::observer::{Sample, Stage};
use crate::report::Reporter;
use loram_io::chat::Message;
use loram_io::data::Sequence;
use loram_nn::{HeadKind, Model};

/// A prompt in tokens.
pub(super) struct Prompt {
    ids: Vec<u32>,
    text: String,
    reference: Option<String>,
}

/// The sample prompts of a configuration; none for heads.
pub(super) fn prompts(config: &TrainConfig, base: &Base, set: &Dataset) -> Result<Vec<Prompt>> {
    if set.head() != HeadKind::LanguageModel {
        return Ok(Vec::new());
    }
    match &config.sample_prompts {
        SamplePrompts::First(n) => {
            let mut out: Vec<Prompt> = Vec::new();
            for s in set.examples.iter().filter_map(|e| e.sequences.first()) {
                if out.len() == *n {
                    break;
                }
                let prompt = of_sequence(base, s)?;
                // data sets may have several completions of one prompt
                if out.iter().all(|p| p.ids != prompt.ids) {
                    out.push(prompt);
                }
            }
            Ok(out)
        }
        SamplePrompts::Texts(texts) => texts.iter().map(|t| of_text(base, set, t)).collect(),
    }
}

impl Setup<'_> {
    /// A short prompt for the model in a suggested command: that of an example, the first words of a text, or a greeting in a
    /// chat.
    pub fn example_prompt(&self, set: &Dataset) -> String {
        const LONGEST: usize = 120;
        let first = set.examples.iter().filter_map(|e| e.sequences.first());
        let prompts = first.take(20).filter_map(|s| of_sequence(&self.base, s).ok());
        let mut texts = prompts.map(|p| p.text.trim().to_string());
        match set.chat {
            true => None,
            false => texts.find(|t| !t.is_empty() && t.chars().count() <= LONGEST && !t.contains('\n')),
        }
        .unwrap_or_else(|| "Hello".into())
    }
}

/// The tokens before the first counted one; the first quarter of a text in which all tokens count.
fn of_sequence(base: &Base, s: &Sequence) -> Result<Prompt> {
    let first = s.loss_mask.iter().position(|&m| m).unwrap_or(s.input_ids.len());
    let at = if first <= 1 { s.input_ids.len().div_ceil(4).max(1) } else { first };
    let (prompt, rest) = s.input_ids.split_at(at.min(s.input_ids.len()));
    let text = base.tokenizer.decode(prompt, true)?;
    let reference = Some(base.tokenizer.decode(rest, true)?.trim().to_string()).filter(|r| !r.is_empty());
    Ok(Prompt { ids: prompt.to_vec(), text, reference })
}

/// A text as it is, or as the user's words in a chat when the data are chats.
fn of_text(base: &Base, set: &Dataset, text: &str) -> Result<Prompt> {
    let ids = if set.chat {
        let rendered = set.preparer.template()?.render(&[Message::new("user", text)], &Default::default(), true)?;
        base.tokenizer.encode(&rendered, false)?.ids
    } else {
        prompt_ids(&base.tokenizer, text)?
    };
    Ok(Prompt { ids, text: text.to_string(), reference: None })
}

/// Lets the model continue the prompts, greedily.
pub(super) fn show(
    config: &TrainConfig,
    base: &Base,
    model: &Model,
    prompts: &[Prompt],
    when: &'static str,
    step: usize,
    reporter: &mut Reporter<'_>,
) -> Result<Vec<Sample>> {
    let mut options = GenerateOptions::greedy(&base.tokenizer, &base.generation, base.config.max_length());
    options.max_new_tokens = config.max_new_tokens;
    let mut out = Vec::new();
    for (i, p) in prompts.iter().enumerate() {
        stage(reporter, Stage::Sample, i as u64, prompts.len() as u64, when);
        let made = continue_tokens(&mut model.generator()?, &base.tokenizer, &p.ids, &options, &mut |_| true)?;
        let sample = Sample {
            when: when.into(),
            prompt: p.text.clone(),
            text: made.text.trim().to_string(),
            reference: p.reference.clone(),
        };
        reporter.sample(step, sample.clone())?;
        out.push(sample);
    }
    if !prompts.is_empty() {
        stage(reporter, Stage::Sample, prompts.len() as u64, prompts.len() as u64, when);
    }
    Ok(out)
}
