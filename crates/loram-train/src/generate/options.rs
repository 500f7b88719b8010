//! Settings and results of a generation.

use crate::sampling::Sampling;
use loram_io::config::GenerationConfig;
use loram_io::tokenizer::TextTokenizer;
use loram_nn::TokenLogProb;
use serde::Serialize;

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
    /// Record the logarithm of the probability of every token, and so many of the likeliest tokens beside it.
    pub logprobs: Option<usize>,
}

impl GenerateOptions {
    /// Greedy, with the ends of text that the model and its tokenizer name.
    pub fn greedy(tokenizer: &TextTokenizer, generation: &GenerationConfig, max_length: usize) -> GenerateOptions {
        let mut eos = generation.eos_token_ids.clone();
        eos.extend(tokenizer.eos_id().filter(|id| !generation.eos_token_ids.contains(id)));
        GenerateOptions {
            sampling: Sampling::default(),
            max_new_tokens: 256,
            eos,
            stop: Vec::new(),
            max_length,
            logprobs: None,
        }
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
    /// For each token its probability, before sampling changes it, where [`GenerateOptions::logprobs`] asks for it; also of the token
    /// that ended the text.
    #[serde(skip)]
    pub logprobs: Vec<TokenLogProb>,
}
