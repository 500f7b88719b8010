//! Norms over the columns.

use crate::held::Held;
use crate::ops::{self, NormStats};
use crate::param::{Params, Vector};
use crate::tensor::Tensor;

/// RMS norm (no bias, 1910.07467) or layer norm (1607.06450) over the columns.
#[derive(Debug)]
pub(crate) struct Norm {
    pub path: String,
    pub weight: Vector,
    pub bias: Option<Vector>,
    /// The bias is a constant 0, which no checkpoint has: a layer norm without bias.
    pub bias_is_fixed: bool,
    pub eps: f64,
    /// Of a norm whose weight is stored minus a constant.
    pub offset: Option<Offset>,
}

/// The factors of a norm whose weight is stored minus a constant (Gemma).
#[derive(Debug)]
pub(crate) struct Offset {
    /// The constant in every column, (1, d).
    pub constant: Tensor,
    /// The frozen weight + the constant, (1, d).
    pub frozen: Tensor,
}

/// Statistics that the backward pass of a norm needs beside its input.
pub(crate) type NormSaved = NormStats;

impl Norm {
    /// Returns whether the weight is trained; a bias is trained with it.
    pub fn trains(&self) -> bool {
        self.weight.param().is_some()
    }

    /// Columns that it works on.
    pub fn width(&self, params: &Params) -> usize {
        self.weight.get(params).cols()
    }

    /// The factors of the columns.
    fn factors<'a>(&'a self, params: &'a Params) -> Held<'a> {
        let weight = self.weight.get(params);
        match (&self.offset, self.weight.param()) {
            (None, _) => Held::Borrowed(weight),
            (Some(offset), None) => Held::Borrowed(&offset.frozen),
            (Some(offset), Some(_)) => {
                let mut factors = weight.copy();
                ops::add_assign(&mut factors, &offset.constant);
                Held::Owned(factors)
            }
        }
    }

    /// x (t, d) → (t, d).
    pub fn forward(&self, params: &Params, x: &Tensor) -> (Tensor, NormSaved) {
        self.forward_with_room(params, x, 0)
    }

    /// [`Self::forward`] with columns to spare after those of the result, as [`crate::linear::room`] asks for.
    pub fn forward_with_room(&self, params: &Params, x: &Tensor, room: usize) -> (Tensor, NormSaved) {
        let bias = self.bias.as_ref().map(|b| b.get(params));
        ops::norm(x, &self.factors(params), bias, self.eps, room)
    }

    /// dx = (accumulate ? dx : 0) + gradient; adds to the gradients of weight and bias when they are trained.
    pub fn backward(
        &self,
        params: &mut Params,
        x: &Tensor,
        saved: &NormSaved,
        dy: &Tensor,
        dx: &mut Tensor,
        accumulate: bool,
    ) {
        let weight = self.weight.param();
        let bias = self.bias.as_ref().and_then(|b| b.param());
        // gradients go through rows of their own: values and gradients live in one list
        let zeros = |_| Tensor::zeros(x.compute().exact(), 1, x.cols());
        let mut dw = weight.map(zeros);
        let mut db = weight.filter(|_| self.bias.is_some()).map(zeros);
        ops::norm_backward(x, &self.factors(params), saved, dy, (dx, accumulate), dw.as_mut(), db.as_mut());
        for (id, gradient) in [(weight, dw), (bias, db)] {
            if let (Some(id), Some(gradient)) = (id, gradient) {
                ops::add_assign(params.grad_mut(id), &gradient);
            }
        }
    }
}
