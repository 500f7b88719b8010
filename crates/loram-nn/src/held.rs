//! A tensor that is borrowed or owned.

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
