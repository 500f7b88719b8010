//! Fields that requests for completions and for chats have in common.

use super::error::ApiError;
use loram_train::{GenerateOptions, Sampling};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::time::{SystemTime, UNIX_EPOCH};

/// Texts for each prompt of a request, and in all of it, at most.
const MOST: usize = 128;
pub(super) const MOST_IN_ALL: usize = 1024;

/// Likeliest tokens that a request may ask for, as at OpenAI's.
const MOST_LOGPROBS: usize = 20;

/// A text or a list of texts.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum Texts {
    One(String),
    Many(Vec<String>),
}

/// How texts are generated and returned. Fields that are not named here are ignored, but those that ask for something else.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fields {
    pub model: Option<String>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    /// 0 or −1: all.
    top_k: Option<i64>,
    repetition_penalty: Option<f64>,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    stop: Option<Texts>,
    seed: Option<i64>,
    n: Option<usize>,
    pub stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Fields of OpenAI's interface that change the answer in a way that is not supported, with the values that change nothing.
const UNSUPPORTED: [(&str, &[&str]); 8] = [
    ("presence_penalty", &["0", "0.0", "null"]),
    ("frequency_penalty", &["0", "0.0", "null"]),
    ("logit_bias", &["{}", "null"]),
    ("best_of", &["1", "null"]),
    ("suffix", &["\"\"", "null"]),
    ("response_format", &["{\"type\":\"text\"}", "null"]),
    ("tool_choice", &["\"none\"", "\"auto\"", "null"]),
    ("guided_json", &["null"]),
];

impl Fields {
    /// Texts for each prompt.
    pub fn texts(&self) -> Result<usize, ApiError> {
        match self.n {
            None => Ok(1),
            Some(n @ 1..=MOST) => Ok(n),
            Some(n) => Err(ApiError::invalid("n", format!("expected 1 to {MOST}, found {n}"))),
        }
    }

    /// True when the end of a stream counts tokens.
    pub fn usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage)
    }

    /// Settings of the text with this number: those of the model, changed as the request says. `tokens` is the number of new tokens
    /// where the request names none.
    pub fn options(
        &self,
        model: &GenerateOptions,
        tokens: usize,
        logprobs: Option<usize>,
        choice: usize,
    ) -> Result<GenerateOptions, ApiError> {
        for (name, harmless) in UNSUPPORTED {
            if let Some(value) = self.others.get(name)
                && !harmless.contains(&value.to_string().as_str())
            {
                return Err(ApiError::invalid(name, format!("`{name}` is not supported, found {value}")));
            }
        }
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(0).max(0) as usize,
            repetition_penalty: self.repetition_penalty.unwrap_or(1.0),
            seed: self.seed.map_or_else(any_seed, |seed| seed as u64).wrapping_add(choice as u64),
        };
        if let Err((name, expected)) = sampling.check() {
            return Err(ApiError::invalid(name, format!("{name}: expected {expected}")));
        }
        if let Some(n) = logprobs.filter(|n| *n > MOST_LOGPROBS) {
            return Err(ApiError::invalid("logprobs", format!("expected at most {MOST_LOGPROBS}, found {n}")));
        }
        let mut options = GenerateOptions { sampling, logprobs, ..model.clone() };
        options.max_new_tokens = self.max_completion_tokens.or(self.max_tokens).unwrap_or(tokens);
        options.stop.extend(match self.stop.clone() {
            None => Vec::new(),
            Some(Texts::One(text)) => vec![text],
            Some(Texts::Many(texts)) => texts,
        });
        options.stop.retain(|text| !text.is_empty());
        Ok(options)
    }
}

/// A seed that nobody has chosen.
fn any_seed() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
