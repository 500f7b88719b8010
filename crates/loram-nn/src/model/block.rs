//! The transformer block: attention or another mixer of tokens, then an MLP, each in a residual connection.

use super::parts::{Cache, Mixer, PartMut, PartRef, Residual, ResidualSaved, Sublayer};
use super::pass::Pass;
use super::stack::{Block, Saved};
use crate::compute::Compute;
use crate::param::Params;
use crate::tensor::Tensor;

/// A mixer `A`, such as attention, and an MLP `M`, one after the other. Where the norms are is a matter of the residual connections.
#[derive(Debug)]
pub(crate) struct SequentialBlock<A, M> {
    pub attention: Residual<A>,
    pub mlp: Residual<M>,
}

/// Activations of the two residual connections.
type Activations<A, M> = (ResidualSaved<<A as Sublayer>::Saved>, ResidualSaved<<M as Sublayer>::Saved>);

impl<A: Mixer + 'static, M: Sublayer + 'static> SequentialBlock<A, M> {
    fn own(saved: Saved) -> Activations<A, M> {
        *saved.downcast().expect("activations of this block")
    }
}

impl<A: Mixer + 'static, M: Sublayer + 'static> Block for SequentialBlock<A, M> {
    fn forward(&self, params: &Params, x: Tensor, pass: &Pass<'_>) -> (Tensor, Saved) {
        let (x, attention) = self.attention.forward(params, x, pass);
        let (x, mlp) = self.mlp.forward(params, x, pass);
        let saved: Activations<A, M> = (attention, mlp);
        (x, Box::new(saved))
    }

    fn backward(
        &self,
        params: &mut Params,
        saved: Saved,
        dy: Tensor,
        need_dx: bool,
        pass: &Pass<'_>,
    ) -> Option<Tensor> {
        let (attention, mlp) = Self::own(saved);
        let dx = self.mlp.backward(params, mlp, dy, true, pass)?;
        self.attention.backward(params, attention, dx, need_dx, pass)
    }

    fn input_of(&self, saved: Saved) -> Tensor {
        Self::own(saved).0.into_input()
    }

    fn cache(&self, compute: Compute) -> Cache {
        self.attention.inner.cache(compute)
    }

    fn continue_with(&self, params: &Params, x: Tensor, caches: &mut [&mut Cache], pass: &Pass<'_>) -> Tensor {
        let x = self.attention.continue_with(params, x, caches, pass);
        self.mlp.forward(params, x, pass).0
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        let ((mut parts, attention_norm), (mlp, mlp_norm)) = (self.attention.parts(), self.mlp.parts());
        parts.extend(mlp.into_iter().chain(attention_norm).chain(mlp_norm));
        parts
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        let ((mut parts, attention_norm), (mlp, mlp_norm)) = (self.attention.parts_mut(), self.mlp.parts_mut());
        parts.extend(mlp.into_iter().chain(attention_norm).chain(mlp_norm));
        parts
    }

    fn frozen(&self) -> Option<&str> {
        self.attention.inner.frozen().or(self.mlp.inner.frozen())
    }
}
