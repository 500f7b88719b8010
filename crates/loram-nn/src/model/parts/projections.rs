//! Projections of one input, by layers of their own or by one layer whose output is cut (`qkv_proj`, `gate_up_proj`).

use super::{Part, PartMut, PartRef};
use crate::compute::Compute;
use crate::linear::{Linear, LinearSaved, backward_all, forward_all, room};
use crate::ops;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;

/// N projections of one input.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a block has two")]
pub(crate) enum Projections<const N: usize> {
    /// A layer for each.
    Apart([Linear; N]),
    /// One layer, whose outputs are those of all, one after another, with so many columns each.
    Fused(Linear, [usize; N]),
}

/// The layers' own of a forward pass.
pub(crate) enum ProjectionsSaved<const N: usize> {
    Apart([LinearSaved; N]),
    Fused(LinearSaved),
}

impl<const N: usize> Projections<N> {
    /// Columns that x should have to spare ([`crate::linear::room`]).
    pub fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize {
        match self {
            Projections::Apart(linears) => room(&linears.each_ref(), params, compute, step),
            Projections::Fused(linear, _) => room(&[linear], params, compute, step),
        }
    }

    /// The layers of the first two projections, where each has its own.
    pub fn first_two(&self) -> Option<[&Linear; 2]> {
        match self {
            Projections::Apart(linears) => Some([linears.first()?, linears.get(1)?]),
            Projections::Fused(..) => None,
        }
    }

    /// Columns of projection `i`.
    pub fn width(&self, i: usize) -> usize {
        match self {
            Projections::Apart(linears) => linears[i].n,
            Projections::Fused(_, widths) => widths[i],
        }
    }

    /// x (t, m) → (t, width) each.
    pub fn forward(&self, params: &Params, x: &Operand<'_>, step: Option<u64>) -> ([Tensor; N], ProjectionsSaved<N>) {
        match self {
            Projections::Apart(linears) => {
                let mut saved = Vec::with_capacity(N);
                let outputs = forward_all(linears.each_ref(), params, x, step).map(|(y, s)| {
                    saved.push(s);
                    y
                });
                let saved = saved.try_into().unwrap_or_else(|_| unreachable!("one for each"));
                (outputs, ProjectionsSaved::Apart(saved))
            }
            Projections::Fused(linear, widths) => {
                let (all, saved) = linear.forward(params, x, step);
                let mut at = 0;
                let outputs = widths.map(|width| {
                    at += width;
                    ops::columns(&all, at - width..at)
                });
                (outputs, ProjectionsSaved::Fused(saved))
            }
        }
    }

    /// Adds to the gradients of the parameters, from those of the outputs;
    /// dx = (accumulate ? dx : 0) + gradient of x where `dx` is `Some((dx, accumulate))`.
    pub fn backward(
        &self,
        params: &mut Params,
        saved: ProjectionsSaved<N>,
        gradients: [Tensor; N],
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        match (self, saved) {
            (Projections::Apart(linears), ProjectionsSaved::Apart(saved)) => {
                let (mut saved, mut gradients) = (saved.into_iter(), gradients.into_iter());
                let layers = linears.each_ref().map(|linear| {
                    let (saved, gradient) = saved.next().zip(gradients.next()).expect("one for each");
                    (linear, saved, gradient)
                });
                backward_all(params, layers, x, dx, step);
            }
            (Projections::Fused(linear, _), ProjectionsSaved::Fused(saved)) => {
                let dy = ops::side_by_side(&gradients);
                drop(gradients);
                backward_all(params, [(linear, saved, dy)], x, dx, step);
            }
            _ => unreachable!("activations of these projections"),
        }
    }

    /// The layers.
    pub fn parts(&self) -> Vec<PartRef<'_>> {
        match self {
            Projections::Apart(linears) => linears.each_ref().map(Part::Linear).into(),
            Projections::Fused(linear, _) => vec![Part::Linear(linear)],
        }
    }

    /// [`Self::parts`] to change.
    pub fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        match self {
            Projections::Apart(linears) => linears.each_mut().map(Part::Linear).into(),
            Projections::Fused(linear, _) => vec![Part::Linear(linear)],
        }
    }
}
