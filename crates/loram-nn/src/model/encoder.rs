//! Backbones of bidirectional encoders: embeddings of tokens, positions and segments under a norm, then blocks.

use super::backbone::Backbone;
use super::parts::{Embedding, Norm, NormSaved, Part, PartMut, PartRef};
use super::pass::Pass;
use super::stack::{Block, Blocks};
use crate::batch::Batch;
use crate::compute::Compute;
use crate::dropout::Dropout;
use crate::param::Params;
use crate::tensor::Tensor;
use crate::{Error, Result};

/// The embedding of relative positions.
pub(crate) struct RelativeEmbedding {
    pub table: Embedding,
    pub norm: Option<Norm>,
}

impl RelativeEmbedding {
    /// All rows of the table, and the same after the norm.
    fn rows(&self, params: &Params, compute: Compute) -> Result<(Tensor, Option<(Tensor, NormSaved)>)> {
        let (rows, cols) = self.table.shape(params);
        let ids: Vec<u32> = (0..rows as u32).collect();
        let mut all = Tensor::scratch(compute, rows, cols);
        self.table.forward(params, &ids, &mut all, false)?;
        let normed = self.norm.as_ref().map(|norm| norm.forward(params, &all));
        Ok((all, normed))
    }

    /// Adds to the gradients of the table and of the norm.
    fn backward(&self, params: &mut Params, mut d: Tensor) -> Result<()> {
        let (all, normed) = self.rows(params, d.compute())?;
        if let (Some(norm), Some((_, saved))) = (&self.norm, normed) {
            let mut dx = Tensor::scratch(d.compute(), d.rows(), d.cols());
            norm.backward(params, &all, &saved, &d, &mut dx, false);
            d = dx;
        }
        let ids: Vec<u32> = (0..d.rows() as u32).collect();
        self.table.backward(params, &ids, &d)
    }

    fn trains(&self) -> bool {
        self.table.trains() || self.norm.as_ref().is_some_and(Norm::trains)
    }
}

/// The backbone of an encoder.
pub(crate) struct Encoder {
    pub words: Embedding,
    /// Of absolute positions; ModernBERT has none.
    pub positions: Option<Embedding>,
    /// Of segments; DistilBERT has none.
    pub types: Option<Embedding>,
    /// Of the sum of the embeddings.
    pub norm: Norm,
    /// Of relative positions, which its attention reads (DeBERTa).
    pub relative: Option<RelativeEmbedding>,
    pub dropout: Dropout,
    pub blocks: Vec<Box<dyn Block>>,
    /// After the blocks, where it has one.
    pub final_norm: Option<Norm>,
    /// Row of the table for the first token of a sequence.
    pub position_offset: usize,
    /// The token that positions do not count, and that takes the row of its own number (RoBERTa).
    pub padding: Option<u32>,
    /// Tokens of the longest sequence.
    pub max_length: usize,
    pub compute: Compute,
}

impl Encoder {
    /// Rows of the tables of positions and segments.
    fn rows(&self, batch: &Batch, pass: &Pass<'_>) -> (Vec<u32>, Vec<u32>) {
        let positions = match self.padding {
            None => pass.sequences.positions.iter().map(|p| p + self.position_offset as u32).collect(),
            Some(padding) => self.positions_without(padding, batch),
        };
        let types = match batch.token_types.is_empty() {
            true => vec![0; batch.tokens.len()],
            false => batch.token_types.clone(),
        };
        (positions, types)
    }
}

impl Encoder {
    /// Rows of the table of positions, which count all tokens but `padding`.
    fn positions_without(&self, padding: u32, batch: &Batch) -> Vec<u32> {
        let mut out = Vec::with_capacity(batch.tokens.len());
        let mut rest = &batch.tokens[..];
        for &n in &batch.lengths {
            let (sequence, after) = rest.split_at(n);
            let mut next = self.position_offset as u32;
            out.extend(sequence.iter().map(|&token| match token == padding {
                true => padding,
                false => {
                    next += 1;
                    next - 1
                }
            }));
            rest = after;
        }
        out
    }
}

impl Backbone for Encoder {
    /// dropout(norm(word + position + segment)).
    fn embed(&self, params: &Params, batch: &Batch, pass: &Pass<'_>) -> Result<(Tensor, Option<(Tensor, NormSaved)>)> {
        if let Some(&length) = batch.lengths.iter().find(|&&n| n > self.max_length) {
            return Err(Error::TooLong { length, max: self.max_length });
        }
        if let Some(relative) = &self.relative {
            let (all, normed) = relative.rows(params, self.compute)?;
            pass.relative.set(normed.map_or(all, |n| n.0), relative.trains());
        }
        let (positions, types) = self.rows(batch, pass);
        let mut sum = Tensor::scratch(self.compute, batch.tokens.len(), self.norm.weight.get(params).cols());
        self.words.forward(params, &batch.tokens, &mut sum, false)?;
        for (table, rows) in
            self.positions.iter().map(|t| (t, &positions)).chain(self.types.iter().map(|t| (t, &types)))
        {
            table.forward(params, rows, &mut sum, true)?;
        }
        let (x, saved) = self.norm.forward(params, &sum);
        Ok((self.dropout.apply(x, pass.step), Some((sum, saved))))
    }

    fn embed_backward(
        &self,
        params: &mut Params,
        batch: &Batch,
        saved: Option<(Tensor, NormSaved)>,
        dx: Tensor,
        pass: &Pass<'_>,
    ) -> Result<()> {
        if let (Some(relative), Some(d)) = (&self.relative, pass.relative.take_gradient()) {
            relative.backward(params, d)?;
        }
        let (sum, saved) = saved.expect("an encoder normalises its embeddings");
        let dx = self.dropout.apply(dx, pass.step);
        let mut d = Tensor::scratch(dx.compute(), dx.rows(), dx.cols());
        self.norm.backward(params, &sum, &saved, &dx, &mut d, false);
        let (positions, types) = self.rows(batch, pass);
        self.words.backward(params, &batch.tokens, &d)?;
        self.positions.iter().try_for_each(|t| t.backward(params, &positions, &d))?;
        self.types.iter().try_for_each(|t| t.backward(params, &types, &d))
    }

    fn tokens(&self) -> &Embedding {
        &self.words
    }

    fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    fn final_norm(&self) -> Option<&Norm> {
        self.final_norm.as_ref()
    }

    fn embedding_parts(&self) -> Vec<PartRef<'_>> {
        let relative = self.relative.iter();
        let tables = [&self.words].into_iter().chain(&self.positions).chain(&self.types);
        let tables = tables.chain(relative.clone().map(|r| &r.table)).map(Part::Embedding);
        tables.chain([Part::Norm(&self.norm)]).chain(relative.flat_map(|r| &r.norm).map(Part::Norm)).collect()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let tables = [&mut self.words].into_iter().chain(&mut self.positions).chain(&mut self.types);
        let mut parts: Vec<_> = tables.map(Part::Embedding).collect();
        parts.push(Part::Norm(&mut self.norm));
        if let Some(relative) = &mut self.relative {
            parts.push(Part::Embedding(&mut relative.table));
            parts.extend(relative.norm.as_mut().map(Part::Norm));
        }
        parts.extend(self.blocks.iter_mut().flat_map(|b| b.parts_mut()));
        parts.extend(self.final_norm.as_mut().map(Part::Norm));
        parts
    }
}
