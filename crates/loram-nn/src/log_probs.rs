//! Probabilities of tokens.

use crate::loss::{BatchLoss, Loss};
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The probability of a token where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProb {
    /// The token.
    pub id: u32,
    /// The natural logarithm of its probability.
    pub log_prob: f32,
    /// The likeliest tokens in its place with theirs, the likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// The logarithm of the softmax of `logits` (vocabulary) at `id`, with the `top` likeliest tokens.
pub fn log_prob(logits: &[f32], id: u32, top: usize) -> TokenLogProb {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let total = f64::from(max) + sum.ln();
    let of = |i: u32| (f64::from(logits[i as usize]) - total) as f32;
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if (1..ids.len()).contains(&top) {
        ids.select_nth_unstable_by(top - 1, order);
    }
    ids.truncate(top);
    ids.sort_unstable_by(order);
    TokenLogProb { id, log_prob: of(id), top: ids.into_iter().map(|i| (i, of(i))).collect() }
}

/// In place of a loss: collects the probability of the token that follows each token of a sequence.
#[derive(Debug)]
pub struct LogProbs {
    tokens: Vec<u32>,
    top: usize,
    found: Vec<TokenLogProb>,
}

impl LogProbs {
    /// For a batch of one sequence of these tokens.
    pub fn new(tokens: Vec<u32>, top: usize) -> LogProbs {
        LogProbs { tokens, top, found: Vec::new() }
    }

    /// The results of a pass: of the second token, the third, …
    pub fn into_found(self) -> Vec<TokenLogProb> {
        self.found
    }
}

impl Loss for LogProbs {
    fn rows(&self) -> usize {
        self.tokens.len()
    }

    fn counts(&self, row: usize) -> bool {
        row + 1 < self.tokens.len()
    }

    fn chunk(&mut self, outputs: &mut Tensor, rows: &[usize], _: f64, grad: bool) -> Result<()> {
        if grad {
            return Err(Error::Task("probabilities of tokens have no gradient".into()));
        }
        let vocabulary = outputs.cols();
        for (logits, &row) in outputs.to_f32_vec().chunks_exact(vocabulary).zip(rows) {
            self.found.push(log_prob(logits, self.tokens[row + 1], self.top));
        }
        Ok(())
    }

    fn take(&mut self) -> Result<BatchLoss> {
        Ok(BatchLoss::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_of_a_softmax() {
        let logits = [0.5f32.ln() + 3.0, 0.125f32.ln() + 3.0, 0.25f32.ln() + 3.0, 0.125f32.ln() + 3.0];
        let found = log_prob(&logits, 1, 3);
        assert_eq!(found.top.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2, 1]);
        for (got, p) in [(found.log_prob, 0.125f32), (found.top[0].1, 0.5), (found.top[1].1, 0.25)] {
            assert!((got - p.ln()).abs() < 1e-6);
        }
        assert_eq!(log_prob(&logits, 0, 9).top.len(), 4);
        assert!(log_prob(&logits, 0, 0).top.is_empty());
    }
}
