//! Multi-layer perceptrons: gated (2002.05202) and plain.

use super::projections::{Projections, ProjectionsSaved};
use super::{Part, PartMut, PartRef, Sublayer};
use crate::compute::Compute;
use crate::held::Held;
use crate::kernels::activation::Act;
use crate::linear::{Layer, Linear, LinearSaved, backward_all, backward_inputs, backward_outputs, room};
use crate::model::pass::Pass;
use crate::ops;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;

/// down(act(gate(x))·up(x)).
#[derive(Debug)]
pub(crate) struct GatedMlp {
    /// Both (inner, hidden).
    pub gate_up: Projections<2>,
    /// (hidden, inner).
    pub down: Linear,
    pub act: Act,
}

/// Activations of a gated MLP; the product of the gate is recomputed.
pub(crate) struct GatedSaved {
    gate: Tensor,
    up: Tensor,
    projections: ProjectionsSaved<2>,
    down: LinearSaved,
}

impl Sublayer for GatedMlp {
    type Saved = GatedSaved;
    /// Gradients of the outputs of `gate` and `up`.
    type Projected = ([Tensor; 2], ProjectionsSaved<2>);

    fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize {
        self.gate_up.room(params, compute, step)
    }

    fn forward(&self, params: &Params, x: Held<'_>, base: Option<&Tensor>, pass: &Pass<'_>) -> (Tensor, GatedSaved) {
        let ([gate, up], projections) = self.gate_up.forward(params, &Operand::new(&x), pass.step);
        drop(x);
        let h = ops::gated(self.act, &gate, &up);
        let (y, down) = self.down.forward_onto(params, &Operand::new(&h), base, pass.step);
        (y, GatedSaved { gate, up, projections, down })
    }

    fn backward(&self, params: &mut Params, s: GatedSaved, dy: Held<'_>, pass: &Pass<'_>) -> Self::Projected {
        let (mut gate, mut up) = (s.gate, s.up);
        let mut dh = Tensor::scratch(dy.compute(), dy.rows(), self.down.m);
        let down = [Layer { linear: &self.down, saved: &s.down, gradient: &Operand::new(&dy) }];
        let pending = backward_outputs(params, &down, Some((&mut dh, false)), pass.step);
        let h = ops::gated_backward(self.act, &mut gate, &mut up, dh);
        backward_inputs(params, &down, &Operand::new(&h), &pending, pass.step);
        drop((h, pending));
        ([gate, up], s.projections)
    }

    fn backward_input(
        &self,
        params: &mut Params,
        (gradients, saved): Self::Projected,
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        self.gate_up.backward(params, saved, gradients, x, dx, step);
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        self.gate_up.parts().into_iter().chain([Part::Linear(&self.down)]).collect()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        self.gate_up.parts_mut().into_iter().chain([Part::Linear(&mut self.down)]).collect()
    }
}

/// down(act(up(x))).
#[derive(Debug)]
pub(crate) struct Mlp {
    /// (inner, hidden).
    pub up: Linear,
    /// (hidden, inner).
    pub down: Linear,
    pub act: Act,
}

/// Activations of an MLP; the output of the activation function is recomputed.
pub(crate) struct MlpSaved {
    /// Before the activation function.
    up: Tensor,
    projection: LinearSaved,
    down: LinearSaved,
}

impl Sublayer for Mlp {
    type Saved = MlpSaved;
    /// Gradient of the output of `up`.
    type Projected = (Tensor, LinearSaved);

    fn room(&self, params: &Params, compute: Compute, step: Option<u64>) -> usize {
        room(&[&self.up], params, compute, step)
    }

    fn forward(&self, params: &Params, x: Held<'_>, base: Option<&Tensor>, pass: &Pass<'_>) -> (Tensor, MlpSaved) {
        let (up, projection) = self.up.forward(params, &Operand::new(&x), pass.step);
        drop(x);
        let h = ops::act(self.act, &up);
        let (y, down) = self.down.forward_onto(params, &Operand::new(&h), base, pass.step);
        (y, MlpSaved { up, projection, down })
    }

    fn backward(&self, params: &mut Params, s: MlpSaved, dy: Held<'_>, pass: &Pass<'_>) -> Self::Projected {
        let h = ops::act(self.act, &s.up);
        let mut dh = Tensor::scratch(dy.compute(), dy.rows(), self.down.m);
        self.down.backward(params, &Operand::new(&h), &s.down, &Operand::new(&dy), Some((&mut dh, false)), pass.step);
        drop((h, dy));
        ops::act_backward(self.act, &s.up, &mut dh);
        (dh, s.projection)
    }

    fn backward_input(
        &self,
        params: &mut Params,
        (dup, saved): Self::Projected,
        x: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        backward_all(params, [(&self.up, saved, dup)], x, dx, step);
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        [&self.up, &self.down].map(Part::Linear).into()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        [&mut self.up, &mut self.down].map(Part::Linear).into()
    }
}
