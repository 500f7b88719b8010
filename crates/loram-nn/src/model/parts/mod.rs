//! The parts that blocks and backbones are wired from. Each has a forward and a backward pass of its own, and saves what
//! its backward pass needs.

mod attention;
mod convolution;
mod embedding;
mod experts;
mod mixer;
mod mlp;
mod norm;
mod positions;
mod projections;
mod residual;
pub(crate) mod rope;

pub(crate) use attention::{Attention, Sinks};
pub(crate) use convolution::ShortConvolution;
pub(crate) use embedding::Embedding;
pub(crate) use experts::{Expert, Experts, First};
pub(crate) use mixer::{Cache, Mixer};
pub(crate) use mlp::{GatedMlp, Mlp};
pub(crate) use norm::{Norm, NormSaved, Offset};
pub(crate) use positions::Positions;
pub(crate) use projections::Projections;
pub(crate) use residual::{Residual, ResidualSaved};

use super::pass::Pass;
use crate::compute::Compute;
use crate::held::Held;
use crate::linear::Linear;
use crate::param::Params;
use crate::tensor::Tensor;
use std::borrow::Borrow;

/// A named piece of a model that holds parameters.
pub(crate) enum Part<L, N, E> {
    Linear(L),
    Norm(N),
    Embedding(E),
}

/// A part to look at.
pub(crate) type PartRef<'a> = Part<&'a Linear, &'a Norm, &'a Embedding>;

/// A part to change.
pub(crate) type PartMut<'a> = Part<&'a mut Linear, &'a mut Norm, &'a mut Embedding>;

impl<L: Borrow<Linear>, N: Borrow<Norm>, E: Borrow<Embedding>> Part<L, N, E> {
    /// The module path.
    pub fn path(&self) -> &str {
        match self {
            Part::Linear(l) => &l.borrow().path,
            Part::Norm(n) => &n.borrow().path,
            Part::Embedding(e) => &e.borrow().path,
        }
    }

    /// Returns whether any parameter of the part is trained.
    pub fn trains(&self) -> bool {
        match self {
            Part::Linear(l) => l.borrow().trains(),
            Part::Norm(n) => n.borrow().trains(),
            Part::Embedding(e) => e.borrow().trains(),
        }
    }
}

/// A layer that a residual connection adds to its stream: attention or an MLP. The backward pass comes in two steps, between which
/// the input is recomputed.
pub(crate) trait Sublayer: Send + Sync {
    /// Activations for the backward pass, without the input.
    type Saved: Send + 'static;
    /// Gradients of the outputs of the projections of the input.
    type Projected;

    /// Columns that x should have to spare ([`crate::linear::room`]).
    fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize;

    /// Returns `base` + sublayer(x), or sublayer(x) alone. x and the result are (t, hidden); x may be wider by [`Self::room`]. An
    /// owned x is dropped as soon as it is not needed.
    fn forward(&self, params: &Params, x: Held<'_>, base: Option<&Tensor>, pass: &Pass<'_>) -> (Tensor, Self::Saved);

    /// The backward pass from the output, with gradient `dy`, to the projections of the input.
    fn backward(&self, params: &mut Params, saved: Self::Saved, dy: Held<'_>, pass: &Pass<'_>) -> Self::Projected;

    /// The rest of the backward pass: dx = (accumulate ? dx : 0) + gradient where `dx` is `Some((dx, accumulate))`.
    fn backward_input(
        &self,
        params: &mut Params,
        projected: Self::Projected,
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    );

    /// The parts that hold parameters, in the order of the model.
    fn parts(&self) -> Vec<PartRef<'_>>;

    /// [`Self::parts`] to change.
    fn parts_mut(&mut self) -> Vec<PartMut<'_>>;

    /// The path of something in it that no kind of training changes.
    fn frozen(&self) -> Option<&str> {
        None
    }
}
