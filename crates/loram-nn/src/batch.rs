//! Batches of sequences, and the losses and outputs of passes over them.

use crate::{Error, Result};

/// Sequences of any length, concatenated without padding. Attention never crosses from one sequence to the next, and
/// positions count from 0 in each.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all sequences, concatenated.
    pub tokens: Vec<u32>,
    /// Number of tokens of each sequence; the sum is `tokens.len()`.
    pub lengths: Vec<usize>,
    /// For next-token prediction: per token, the id of the **next** token where the loss counts it, else
    /// [`IGNORE`](crate::IGNORE) (−100). Empty otherwise.
    pub labels: Vec<i64>,
    /// Segment (token type) of each token, for encoders. Empty: all 0.
    pub token_types: Vec<u32>,
    /// Targets of a classification or regression head, one for each sequence.
    pub targets: Targets,
}

/// Targets of a classification or regression head, one for each sequence.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Targets {
    /// No targets: a language model, or outputs without a loss.
    #[default]
    None,
    /// Class ids.
    Class(Vec<usize>),
    /// Numbers.
    Value(Vec<f32>),
}

impl Targets {
    fn len(&self) -> Option<usize> {
        match self {
            Targets::None => None,
            Targets::Class(v) => Some(v.len()),
            Targets::Value(v) => Some(v.len()),
        }
    }
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
        if !self.labels.is_empty() && self.labels.len() != total {
            return wrong("number of labels", self.labels.len(), total);
        }
        if !self.token_types.is_empty() && self.token_types.len() != total {
            return wrong("number of token types", self.token_types.len(), total);
        }
        match self.targets.len() {
            Some(n) if n != self.lengths.len() => wrong("number of targets", n, self.lengths.len()),
            _ => Ok(()),
        }
    }

    /// The position of every token within its sequence.
    pub fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|&n| 0..n as u32).collect()
    }
}

/// Sums over the targets that counted in a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLoss {
    /// Σ of the losses (nats, or squared errors).
    pub loss_sum: f64,
    /// Number of tokens or sequences that counted.
    pub counted: usize,
    /// Number of those whose largest logit was that of the target.
    pub correct: usize,
}

impl BatchLoss {
    /// Adds the sums of another batch.
    pub fn add(&mut self, other: BatchLoss) {
        self.loss_sum += other.loss_sum;
        self.counted += other.counted;
        self.correct += other.correct;
    }
}

/// Result of a forward pass without gradients.
#[derive(Debug, Clone, Default)]
pub struct EvalOut {
    /// Sums of the loss.
    pub loss: BatchLoss,
    /// Outputs of a classification or regression head, (sequences, outputs), row-major. Empty for language models.
    pub logits: Vec<f32>,
}
