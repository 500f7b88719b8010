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
        let Generator { model, head, .. } = *self;
        if tokens.is_empty() {
            return Err(Error::Batch("a generator is fed at least one token".into()));
        }
        if let Some(index) = tokens.iter().position(|&t| t as usize >= head.linear.n) {
            let value = i64::from(tokens[index]);
            return Err(OutOfRange { what: "token id", index, value, limit: head.linear.n }.into());
        }
        let past = self.tokens.len();
        let turned = model.backbone.turning_point().is_some_and(|at| past + tokens.len() > at);
        if turned != std::mem::replace(&mut self.turned, turned) && past > 0 {
            // what the cache holds was rotated in the other way, and is computed again, as in transformers
            let all = [&self.tokens, tokens].concat();
            self.truncate(0);
            return self.feed(&all);
        }
        let positions: Vec<u32> = (past..past + tokens.len()).map(|p| p as u32).collect();
        let batch = Batch { tokens: tokens.to_vec(), lengths: vec![tokens.len()], ..Batch::default() };
        let pass = Pass { past, ..Pass::new(&batch.lengths, &positions, None) };
        let (backbone, params) = (&model.backbone, &model.params);
        run(model.options.compute, || {
            let (mut x, _) = backbone.embed(params, &batch, &pass)?;
            for (block, cache) in backbone.blocks().iter().zip(&mut self.cache) {
                x = block.continue_with(params, x, cache, &pass);
            }
            self.tokens.extend_from_slice(tokens);
            let last = backbone.finish(params, x).gather_rows(&[tokens.len() - 1]);
            Ok(head.logits(params, &last).to_f32_vec())
        })
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        for layer in &mut self.cache {
            layer.truncate(len);
        }
    }
}
