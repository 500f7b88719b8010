//! Generation token by token, with a cache of what layers need of the tokens before.

use super::head::{Head, LmHead};
use super::parts::Cache;
use super::pass::{Pass, run};
use super::transformer::Model;
use crate::batch::Batch;
use crate::kernels::OutOfRange;
use crate::{Error, Result, cuda};

/// A sequence that is being generated, with what layers need of all tokens so far, such as keys and values.
pub struct Generator<'a> {
    model: &'a Model,
    /// `lm_head`.
    head: &'a LmHead,
    cache: Vec<Cache>,
    tokens: Vec<u32>,
    /// The cache is that of a sequence beyond the turning point of the rotary embedding.
    turned: bool,
}

impl Model {
    /// Returns a generator with an empty sequence. Errors for models without a language model head.
    pub fn generator(&self) -> Result<Generator<'_>> {
        let Head::Lm(head) = &self.head else {
            return Err(Error::Task("this model classifies texts, it does not write them".into()));
        };
        let cache = cuda::catch(|| Ok(self.backbone.blocks().iter().map(|b| b.cache(self.options.compute)).collect()))?;
        Ok(Generator { model: self, head, cache, tokens: Vec::new(), turned: false })
    }
}

impl Generator<'_> {
    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Appends tokens (at least one); returns the logits (vocabulary) of the token that follows.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        Ok(feed_all(&mut [(self, tokens)])?.swap_remove(0))
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        for layer in &mut self.cache {
            layer.truncate(len);
        }
    }
}

/// Appends tokens to several sequences of one model in one pass, at least one to each; returns for each the logits (vocabulary) of
/// the token that follows. The products of a pass read every weight once, however many sequences there are.
///
/// # Errors
/// No tokens, a token beyond the vocabulary, a sequence that is too long for the model.
pub fn feed_all(sequences: &mut [(&mut Generator<'_>, &[u32])]) -> Result<Vec<Vec<f32>>> {
    let Some((Generator { model, head, .. }, _)) = sequences.first() else { return Ok(Vec::new()) };
    let (model, head): (&Model, &LmHead) = (model, head);
    let mut tokens = Vec::new();
    let (mut lengths, mut past) = (Vec::new(), Vec::new());
    for (sequence, new) in sequences.iter() {
        assert!(std::ptr::eq(sequence.model, model), "sequences of one model");
        if new.is_empty() {
            return Err(Error::Batch("a generator is fed at least one token".into()));
        }
        if let Some(index) = new.iter().position(|&t| t as usize >= head.linear.n) {
            let value = i64::from(new[index]);
            return Err(OutOfRange { what: "token id", index, value, limit: head.linear.n }.into());
        }
    }
    for (sequence, new) in sequences.iter_mut() {
        let before = sequence.tokens.len();
        let turned = model.backbone.turning_point().is_some_and(|at| before + new.len() > at);
        if turned != std::mem::replace(&mut sequence.turned, turned) && before > 0 {
            // what the cache holds was rotated in the other way, and is computed again, as in transformers
            tokens.append(&mut sequence.tokens);
            sequence.truncate(0);
        }
        tokens.extend_from_slice(new);
        past.push(sequence.tokens.len());
        lengths.push(before + new.len() - sequence.tokens.len());
    }
    let positions: Vec<u32> =
        past.iter().zip(&lengths).flat_map(|(&past, n)| (past..past + n).map(|p| p as u32)).collect();
    let batch = Batch { tokens, lengths, ..Batch::default() };
    let pass = Pass { past: &past, ..Pass::new(&batch.lengths, &positions, None) };
    let (backbone, params) = (&model.backbone, &model.params);
    run(model.options.compute, || {
        let (mut x, _) = backbone.embed(params, &batch, &pass)?;
        for (i, block) in backbone.blocks().iter().enumerate() {
            let mut caches: Vec<&mut Cache> = sequences.iter_mut().map(|(s, _)| &mut s.cache[i]).collect();
            x = block.continue_with(params, x, &mut caches, &pass);
        }
        let (mut first, mut last) = (0, Vec::new());
        for ((sequence, _), n) in sequences.iter_mut().zip(&batch.lengths) {
            sequence.tokens.extend_from_slice(&batch.tokens[first..first + n]);
            first += n;
            last.push(first - 1);
        }
        let logits = head.logits(params, &backbone.finish(params, x).gather_rows(&last)).to_f32_vec();
        Ok(logits.chunks(head.linear.n).map(<[f32]>::to_vec).collect())
    })
}
