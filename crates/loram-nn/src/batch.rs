//! What goes into a model and what comes out.

use crate::{Error, Result};

/// Sequences, one after another, without padding. Attention never crosses from one to the next, and positions restart.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// Token ids of all documents.
    pub tokens: Vec<u32>,
    /// Tokens per document; the sum is `tokens.len()`.
    pub lengths: Vec<usize>,
    /// Per token: the id of the **next** token where that counts, else −100. Empty for heads.
    pub labels: Vec<i64>,
    /// Segment per token, for encoders. Empty: all 0.
    pub token_types: Vec<u32>,
    /// What a head should say, per document.
    pub targets: Targets,
}

/// What a head should say, per document.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Targets {
    /// Nothing: a language model, or prediction only.
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
    /// Checks that lengths fit together; token ids are checked where they are looked up.
    pub fn check(&self) -> Result<()> {
        let total: usize = self.lengths.iter().sum();
        let wrong = |what: &str, found: usize, expected: usize| {
            Err(Error::Batch(format!("{what}: found {found}, expected {expected}")))
        };
        if total != self.tokens.len() {
            return wrong("sum of the document lengths", total, self.tokens.len());
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

    /// Position of every token within its document.
    pub fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|&n| 0..n as u32).collect()
    }
}

/// Sums over the targets that counted in a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct BatchLoss {
    /// Σ of the losses (nats, or squared errors).
    pub loss_sum: f64,
    /// Number of tokens or documents that counted.
    pub counted: usize,
    /// How many of them had the largest logit in the right place.
    pub correct: usize,
}

impl BatchLoss {
    /// Adds another batch.
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
    /// For heads: documents × outputs, row-major. Empty for language models.
    pub logits: Vec<f32>,
}
