//! Backbones of decoders: token embeddings, blocks, a last norm.

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

/// The backbone of a decoder.
pub(crate) struct Decoder {
    pub embed: Embedding,
    /// Factor on the embeddings.
    pub embedding_scale: f64,
    /// Learnt positions, which are added to the embeddings (GPT-2).
    pub positions: Option<Embedding>,
    /// On the sum of embeddings.
    pub dropout: Dropout,
    pub blocks: Vec<Box<dyn Block>>,
    pub norm: Norm,
    /// [`Backbone::turning_point`].
    pub turning_point: Option<usize>,
    pub compute: Compute,
}

impl Backbone for Decoder {
    fn embed(&self, params: &Params, batch: &Batch, pass: &Pass<'_>) -> Result<(Tensor, Option<(Tensor, NormSaved)>)> {
        let mut x = Tensor::scratch(self.compute, batch.tokens.len(), self.norm.width(params));
        self.embed.forward(params, &batch.tokens, &mut x, false)?;
        if self.embedding_scale != 1.0 {
            x.scale(self.embedding_scale);
        }
        if let Some(table) = &self.positions {
            let max = table.shape(params).0;
            if let Some(length) = pass.totals().find(|&n| n > max) {
                return Err(Error::TooLong { length, max });
            }
            table.forward(params, pass.sequences.positions, &mut x, true)?;
        }
        Ok((self.dropout.apply(x, pass.step), None))
    }

    fn embed_backward(
        &self,
        params: &mut Params,
        batch: &Batch,
        _: Option<(Tensor, NormSaved)>,
        dx: Tensor,
        pass: &Pass<'_>,
    ) -> Result<()> {
        let mut dx = self.dropout.apply(dx, pass.step);
        if let Some(table) = &self.positions {
            table.backward(params, pass.sequences.positions, &dx)?;
        }
        if self.embedding_scale != 1.0 {
            dx.scale(self.embedding_scale);
        }
        self.embed.backward(params, &batch.tokens, &dx)
    }

    fn tokens(&self) -> &Embedding {
        &self.embed
    }

    fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    fn final_norm(&self) -> Option<&Norm> {
        Some(&self.norm)
    }

    fn turning_point(&self) -> Option<usize> {
        self.turning_point
    }

    fn embedding_parts(&self) -> Vec<PartRef<'_>> {
        [&self.embed].into_iter().chain(&self.positions).map(Part::Embedding).collect()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let tables = [&mut self.embed].into_iter().chain(&mut self.positions);
        let mut parts: Vec<_> = tables.map(Part::Embedding).collect();
        parts.extend(self.blocks.iter_mut().flat_map(|b| b.parts_mut()));
        parts.push(Part::Norm(&mut self.norm));
        parts
    }
}
