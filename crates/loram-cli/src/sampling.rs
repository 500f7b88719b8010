//! Flags of generated texts.

use crate::error::{Error, Result};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use loram_train::{GenerateOptions, Sampling};

/// How texts are generated.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Sampling temperature; 0 always takes the most likely token
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 0.0, help_heading = "Sampling")]
    pub temperature: f64,
    /// Sample from the most likely tokens whose probabilities sum to this
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 1.0, help_heading = "Sampling")]
    pub top_p: f64,
    /// Sample from this many of the most likely tokens; 0 means all
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Sampling")]
    pub top_k: usize,
    /// Penalise tokens that already occurred; 1 means no penalty
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = 1.0, help_heading = "Sampling")]
    pub repetition_penalty: f64,
    /// Maximum number of new tokens
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Sampling")]
    pub max_new_tokens: usize,
    /// Text that ends the answer and is not part of it; may be repeated
    #[arg(long, value_name = "TEXT", help_heading = "Sampling")]
    pub stop: Vec<String>,
    /// Random seed
    #[arg(long, value_name = "N", default_value_t = 42, help_heading = "Sampling")]
    pub seed: u64,
}

impl SamplingArgs {
    /// An error for the first of these flags that was given, where none of them has a meaning.
    ///
    /// # Errors
    /// The flag, and `why` it has none.
    pub fn refuse(matches: &ArgMatches, why: &str) -> Result<()> {
        let names = ["temperature", "top_p", "top_k", "repetition_penalty", "max_new_tokens", "stop", "seed"];
        let given = names.iter().find(|n| matches.value_source(n) == Some(ValueSource::CommandLine));
        match given {
            Some(name) => Err(Error::Usage(format!("--{}: {why}", name.replace('_', "-")))),
            None => Ok(()),
        }
    }

    /// These settings on those of a model.
    ///
    /// # Errors
    /// A value out of its range.
    pub fn options(&self, model: GenerateOptions) -> Result<GenerateOptions> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        if let Err((name, expected)) = sampling.check() {
            return Err(Error::Usage(format!("--{}: expected {expected}", name.replace('_', "-"))));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(Error::Usage("--stop: expected a text that is not empty".into()));
        }
        Ok(GenerateOptions { sampling, max_new_tokens: self.max_new_tokens, stop: self.stop.clone(), ..model })
    }
}
