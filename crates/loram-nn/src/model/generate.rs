//! Token by token, with a cache of keys and values.

use super::decoder_block::LayerCache;
use super::head::Head;
use super::{Backbone, Model};
use crate::kernels::OutOfRange;
use crate::{Error, Result, cuda};

/// A text in the making: keys and values of all tokens so far.
pub struct Generator<'a> {
    model: &'a Model,
    cache: Vec<LayerCache>,
    tokens: Vec<u32>,
}

impl Model {
    /// Starts an empty text. An error for models that do not write.
    pub fn generator(&self) -> Result<Generator<'_>> {
        match (&self.backbone, &self.head) {
            (Backbone::Decoder(d), Head::Lm(_)) => Ok(Generator { model: self, cache: d.cache(), tokens: Vec::new() }),
            _ => Err(Error::Task("this model classifies texts, it does not write them".into())),
        }
    }
}

impl Generator<'_> {
    /// Tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Appends tokens (at least one); gives the logits (vocabulary) for what follows the last.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let (Backbone::Decoder(decoder), Head::Lm(head)) = (&self.model.backbone, &self.model.head) else {
            unreachable!("checked when the generator was made")
        };
        if tokens.is_empty() {
            return Err(Error::Batch("a generator is fed at least one token".into()));
        }
        if let Some(index) = tokens.iter().position(|&t| t as usize >= head.n) {
            let value = i64::from(tokens[index]);
            return Err(OutOfRange { what: "token id", index, value, limit: head.n }.into());
        }
        let params = &self.model.params;
        cuda::catch(|| {
            let hidden = decoder.continue_with(params, tokens, self.tokens.len(), &mut self.cache)?;
            self.tokens.extend_from_slice(tokens);
            let last = hidden.gather_rows(&[tokens.len() - 1]);
            Ok(head.forward(params, &last, None).0.to_f32_vec())
        })
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        for layer in &mut self.cache {
            layer.k.truncate_rows(len);
            layer.v.truncate_rows(len);
        }
    }
}
