//! A tensor that is borrowed or owned.

use crate::compute::Compute;
use crate::tensor::Tensor;
use std::borrow::Borrow;
use std::ops::Deref;

/// A tensor of somebody else, or an own one. (`Cow` needs `Clone`, and a copy on a GPU can fail.)
#[derive(Debug)]
pub(crate) enum Held<'a> {
    Borrowed(&'a Tensor),
    Owned(Tensor),
}

impl Held<'_> {
    /// The tensor, copied where it is borrowed.
    pub fn into_owned(self) -> Tensor {
        match self {
            Held::Borrowed(t) => t.copy(),
            Held::Owned(t) => t,
        }
    }
}

impl Tensor {
    /// The tensor itself, or a copy in single precision where it is on a GPU.
    pub(crate) fn on_cpu(&self) -> Held<'_> {
        match self.compute().on_gpu() {
            false => Held::Borrowed(self),
            true => Held::Owned(Tensor::from_f32(Compute::F32, self.rows(), self.cols(), &self.to_f32_vec())),
        }
    }
}

impl Deref for Held<'_> {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        match self {
            Held::Borrowed(t) => t,
            Held::Owned(t) => t,
        }
    }
}

impl Borrow<Tensor> for Held<'_> {
    fn borrow(&self) -> &Tensor {
        self
    }
}
