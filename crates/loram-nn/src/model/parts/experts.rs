//! Mixtures of experts (1701.06538, 2401.04088): a router chooses some of many gated MLPs for each token, whose outputs are added with weights.
//! Router and experts are frozen; gradients pass through both.
//!
//! The rows of the tokens of an expert are collected, so that each product reads one weight once, and results are added expert by expert: the
//! same bits for any number of threads.

use super::{PartMut, PartRef, Sublayer};
use crate::compute::Compute;
use crate::frozen::FrozenLinear;
use crate::held::Held;
use crate::kernels::routing::{Routes, Routing};
use crate::mixture::{Join, of_f64, row_dots, scale_rows};
use crate::model::pass::Pass;
use crate::param::Params;
use crate::products::Operand;
use crate::tensor::Tensor;

/// A mixture of experts in place of an MLP.
#[derive(Debug)]
pub(crate) struct Experts {
    /// The path of the list of experts.
    pub path: String,
    /// (experts, hidden). Its products are exact, since they decide.
    pub router: FrozenLinear,
    pub routes: Routes,
    pub experts: Vec<Expert>,
    pub join: Join,
}

/// One expert: down(join(gate(x), up(x))).
#[derive(Debug)]
pub(crate) struct Expert {
    pub first: First,
    /// (hidden, inner).
    pub down: FrozenLinear,
}

/// The layers gate and up of an expert, (inner, hidden) each.
#[derive(Debug)]
pub(crate) enum First {
    Apart(Box<[FrozenLinear; 2]>),
    /// One layer (2·inner, hidden), whose outputs are those of both in turn.
    Alternating(FrozenLinear),
}

/// The columns of gate and of up among `n` alternating ones.
fn columns(n: usize) -> [Vec<u32>; 2] {
    [0, 1].map(|first| (first..n as u32).step_by(2).collect())
}

impl First {
    /// x (t, hidden) → gate and up (t, inner).
    fn forward(&self, x: &Tensor) -> [Tensor; 2] {
        let (operand, compute) = (Operand::new(x), x.compute());
        match self {
            First::Apart(layers) => layers.each_ref().map(|layer| layer.forward(&operand, compute)),
            First::Alternating(layer) => {
                let both = layer.forward(&operand, compute);
                columns(both.cols()).map(|columns| both.gather_columns(&columns))
            }
        }
    }

    /// dx (t, hidden) from the gradients of gate and up.
    fn backward(&self, gradients: &[Tensor; 2], dx: &mut Tensor) {
        match self {
            First::Apart(layers) => {
                layers[0].backward(&Operand::new(&gradients[0]), dx, false);
                layers[1].backward(&Operand::new(&gradients[1]), dx, true);
            }
            First::Alternating(layer) => {
                let mut both = Tensor::zeros(dx.compute(), dx.rows(), layer.outputs());
                for (columns, gradient) in columns(both.cols()).iter().zip(gradients) {
                    both.add_columns(columns, gradient);
                }
                layer.backward(&Operand::new(&both), dx, false);
            }
        }
    }
}

/// Activations of a mixture.
pub(crate) struct ExpertsSaved {
    routing: Routing,
    /// Of each expert that has tokens: gate and up.
    activations: Vec<Option<[Tensor; 2]>>,
}

impl Experts {
    /// Width of the inputs.
    fn hidden(&self) -> usize {
        self.router.inputs()
    }
}

impl Sublayer for Experts {
    type Saved = ExpertsSaved;
    /// Routes, gradients of gate and up, and gradient of the router's outputs.
    type Projected = (Routing, Vec<Option<[Tensor; 2]>>, Tensor);

    fn room(&self, _: &Params, _: Compute, _: Option<u64>) -> usize {
        0
    }

    fn forward(&self, _: &Params, x: Held<'_>, base: Option<&Tensor>, _: &Pass<'_>) -> (Tensor, ExpertsSaved) {
        let outputs = self.router.forward(&Operand::new(&x), x.compute().exact());
        let routing = self.routes.route(&outputs.to_f64_vec());
        let mut y = base.map_or_else(|| Tensor::zeros(x.compute(), x.rows(), self.hidden()), Tensor::copy);
        let mut activations = Vec::with_capacity(self.experts.len());
        for (expert, group) in self.experts.iter().zip(&routing.groups) {
            if group.tokens.is_empty() {
                activations.push(None);
                continue;
            }
            let [gate, up] = expert.first.forward(&x.gather_rows(&group.tokens));
            let h = self.join.forward(&gate, &up);
            let mut own = expert.down.forward(&Operand::new(&h), x.compute());
            scale_rows(&mut own, &group.weights);
            y.add_rows(&group.tokens, &own);
            activations.push(Some([gate, up]));
        }
        (y, ExpertsSaved { routing, activations })
    }

    fn backward(&self, _: &mut Params, s: ExpertsSaved, dy: Held<'_>, _: &Pass<'_>) -> Self::Projected {
        let ExpertsSaved { routing, mut activations } = s;
        let mut gradients = vec![Vec::new(); self.experts.len()];
        for (e, (expert, group)) in self.experts.iter().zip(&routing.groups).enumerate() {
            let Some([gate, up]) = &mut activations[e] else { continue };
            let own = dy.gather_rows(&group.tokens);
            let mut dh = Tensor::scratch(own.compute(), own.rows(), expert.down.inputs());
            expert.down.backward(&Operand::new(&own), &mut dh, false);
            // dy·(W·h + bias) of each token, without the outputs of the expert
            gradients[e] = row_dots(&dh, &self.join.forward(gate, up));
            if let Some(bias) = &expert.down.bias {
                gradients[e].iter_mut().zip(row_dots(&own, bias)).for_each(|(g, more)| *g += more);
            }
            scale_rows(&mut dh, &group.weights);
            self.join.backward(gate, up, dh);
        }
        let (rows, compute) = (dy.rows(), dy.compute().exact());
        let outputs = self.routes.backward(&routing, &gradients, rows);
        (routing, activations, of_f64(compute, rows, self.routes.count, &outputs))
    }

    fn backward_input(
        &self,
        _: &mut Params,
        (routing, gradients, outputs): Self::Projected,
        _: &Tensor,
        dx: Option<(&mut Tensor, bool)>,
        _: Option<u64>,
    ) {
        let Some((dx, accumulate)) = dx else { return };
        self.router.backward(&Operand::new(&outputs), dx, accumulate);
        for ((expert, group), gradients) in self.experts.iter().zip(&routing.groups).zip(&gradients) {
            let Some(gradients) = gradients else { continue };
            let mut own = Tensor::scratch(dx.compute(), group.tokens.len(), self.hidden());
            expert.first.backward(gradients, &mut own);
            dx.add_rows(&group.tokens, &own);
        }
    }

    fn parts(&self) -> Vec<PartRef<'_>> {
        Vec::new()
    }

    fn parts_mut(&mut self) -> Vec<PartMut<'_>> {
        Vec::new()
    }

    fn frozen(&self) -> Option<&str> {
        Some(&self.path)
    }
}
