//! A parameter in a step of AdamW, with its gradient and moments.

use crate::kernels::optim::AdamW;
use crate::tensor::Tensor;

/// A parameter in a step of AdamW.
#[derive(Debug)]
pub struct AdamWStep<'a> {
    /// The parameter.
    pub p: &'a mut Tensor,
    /// Its gradient.
    pub g: &'a Tensor,
    /// First moment.
    pub m: &'a mut Tensor,
    /// Second moment.
    pub v: &'a mut Tensor,
    /// Rates and decay.
    pub how: AdamW,
}
