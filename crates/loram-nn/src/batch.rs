//! The input of a model and the result of an evaluation.

use crate::loss::BatchLoss;
use crate::{Error, Result};

/// Sequences of any length, concatenated without padding. Attention never crosses from one sequence to the next, and
/// positions count from 0 in each.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all sequences, concatenated.
    pub tokens: Vec<u32>,
    /// Number of tokens of each sequence; the sum is `tokens.len()`.
    pub lengths: Vec<usize>,
    /// Segment (token type) of each token, for encoders. Empty: all 0.
    pub token_types: Vec<u32>,
}

impl Batch {
    /// Checks that the lists have matching lengths. Token ids are checked where they are looked up.
    pub fn check(&self) -> Result<()> {
        let total: usize = self.lengths.iter().sum();
        let wrong = |what: &str, found: usize, expected: usize| {
            Err(Error::Batch(format!("{what}: found {found}, expected {expected}")))
        };
        if total != self.tokens.len() {
            return wrong("sum of the sequence lengths", total, self.tokens.len());
        }
        match self.token_types.len() {
            n if n != 0 && n != total => wrong("number of token types", n, total),
            _ => Ok(()),
        }
    }

    /// The position of every token within its sequence.
    pub fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|&n| 0..n as u32).collect()
    }
}

/// Result of a forward pass without gradients.
#[derive(Debug, Clone, Default)]
pub struct EvalOut {
    /// Sums of the loss.
    pub loss: BatchLoss,
    /// For pooled heads: (sequences, outputs), row-major. For language models: the figures of the loss
    /// ([`Loss::figures`](crate::Loss::figures)).
    pub logits: Vec<f32>,
}
