//! Backbones: models without their heads, made of an embedding, blocks, and perhaps a last norm.

use super::parts::{Embedding, Norm, NormSaved, PartMut, PartRef};
use super::pass::Pass;
use super::stack::Blocks;
use crate::Result;
use crate::batch::Batch;
use crate::linear::Linear;
use crate::param::Params;
use crate::tensor::Tensor;

/// The transformer without its head.
pub(crate) trait Backbone: Send + Sync {
    /// The hidden states (t, hidden) that enter the blocks, and the sum of embeddings before its norm where there is one.
    /// Errors name ids beyond a table and sequences that are too long.
    fn embed(&self, params: &Params, batch: &Batch, pass: &Pass<'_>) -> Result<(Tensor, Option<(Tensor, NormSaved)>)>;

    /// The backward pass of [`Self::embed`].
    fn embed_backward(
        &self,
        params: &mut Params,
        batch: &Batch,
        saved: Option<(Tensor, NormSaved)>,
        dx: Tensor,
        pass: &Pass<'_>,
    ) -> Result<()>;

    /// The table of the tokens, which a tied head shares.
    fn tokens(&self) -> &Embedding;

    /// The blocks, from the embedding up.
    fn blocks(&self) -> &Blocks;

    /// The norm over the blocks.
    fn final_norm(&self) -> Option<&Norm>;

    /// Tokens beyond which keys are rotated in another way, those before too (LongRoPE).
    fn turning_point(&self) -> Option<usize> {
        None
    }

    /// The parts below the blocks.
    fn embedding_parts(&self) -> Vec<PartRef<'_>>;

    /// All parts that hold parameters, in the order of the model.
    fn parts_mut(&mut self) -> Vec<PartMut<'_>>;
}

impl dyn Backbone {
    /// The linear layers, in the order of the model.
    pub fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.blocks().iter().flat_map(|b| b.parts()).filter_map(|part| match part {
            super::parts::Part::Linear(l) => Some(l),
            _ => None,
        })
    }

    /// Returns whether anything below the blocks is trained.
    pub fn embedding_trains(&self) -> bool {
        self.embedding_parts().iter().any(|part| part.trains())
    }

    /// The final hidden states (t, hidden) of the output of the blocks.
    pub fn finish(&self, params: &Params, x: Tensor) -> Tensor {
        match self.final_norm() {
            Some(norm) => norm.forward(params, &x).0,
            None => x,
        }
    }
}
