//! Linear layers that are never trained and take no adapter: routers and experts.

use crate::compute::Compute;
#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::ops;
use crate::products::Operand;
use crate::tensor::{Tensor, typed};
use crate::weight::Weight;

/// y = x·Wᵀ + bias.
#[derive(Debug)]
pub(crate) struct FrozenLinear {
    /// W (outputs, inputs), or its transpose.
    pub weight: Weight,
    /// The weight is stored as (inputs, outputs).
    pub transposed: bool,
    /// (1, outputs), in the number type of parameters.
    pub bias: Option<Tensor>,
}

impl FrozenLinear {
    /// Outputs.
    pub fn outputs(&self) -> usize {
        if self.transposed { self.weight.cols() } else { self.weight.rows() }
    }

    /// Inputs.
    pub fn inputs(&self) -> usize {
        if self.transposed { self.weight.rows() } else { self.weight.cols() }
    }

    /// x (t, inputs) → (t, outputs), in the number type `out`.
    pub fn forward(&self, x: &Operand<'_>, out: Compute) -> Tensor {
        let mut y = Tensor::scratch(out, x.tensor().rows(), self.outputs());
        self.multiply(x, &mut y, false, !self.transposed);
        if let Some(bias) = &self.bias {
            ops::add_bias(&mut y, bias);
        }
        y
    }

    /// dx (t, inputs) = (accumulate ? dx : 0) + dy·W.
    pub fn backward(&self, dy: &Operand<'_>, dx: &mut Tensor, accumulate: bool) {
        self.multiply(dy, dx, accumulate, self.transposed);
    }

    /// out = (accumulate ? out : 0) + x·S, or x·Sᵀ, where S is the weight as it is stored.
    fn multiply(&self, x: &Operand<'_>, out: &mut Tensor, accumulate: bool, with_transpose: bool) {
        typed!(x.tensor(), T, match with_transpose {
            true => self.weight.product_t::<T>(x, out, accumulate, &[]),
            false => self.weight.product::<T>(x, out, accumulate, &[]),
        }, gpu: {
            let stored = self.weight.on_gpu(x.tensor());
            let side = if with_transpose { Side::t(&stored) } else { Side::of(&stored) };
            product(out, accumulate, 1.0, Side::of(x.tensor()), side);
        });
    }
}
