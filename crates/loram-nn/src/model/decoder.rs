//! Backbones of decoders: token embeddings, blocks, a last norm.

use super::backbone::Backbone;
use super::parts::{Embedding, Norm, NormSaved, Part, PartMut, PartRef};
use super::pass::Pass;
use super::stack::{Block, Blocks};
use crate::Result;
use crate::batch::Batch;
use crate::compute::Compute;
use crate::param::Params;
use crate::tensor::Tensor;

/// The backbone of a decoder.
pub(crate) struct Decoder {
    pub embed: Embedding,
    /// Factor on the embeddings.
    pub embedding_scale: f64,
    pub blocks: Vec<Box<dyn Block>>,
    pub norm: Norm,
    /// [`Backbone::turning_point`].
    pub turning_point: Option<usize>,
    pub compute: Compute,
}

impl Backbone for Decoder {
    fn embed(&self, params: &Params, batch: &Batch, _: &Pass<'_>) -> Result<(Tensor, Option<(Tensor, NormSaved)>)> {
        let mut x = Tensor::scratch(self.compute, batch.tokens.len(), self.norm.width(params));
        self.embed.forward(params, &batch.tokens, &mut x, false)?;
        if self.embedding_scale != 1.0 {
            x.scale(self.embedding_scale);
        }
        Ok((x, None))
    }

    fn embed_backward(
        &self,
        params: &mut Params,
        batch: &Batch,
        _: Option<(Tensor, NormSaved)>,
        mut dx: Tensor,
        _: &Pass<'_>,
    ) -> Result<()> {
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
        vec![Part::Embedding(&self.embed)]
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let mut parts = vec![Part::Embedding(&mut self.embed)];
        parts.extend(self.blocks.iter_mut().flat_map(|b| b.parts_mut()));
        parts.push(Part::Norm(&mut self.norm));
        parts
    }
}
