//! Weights that are more than numbers of one type in one tensor: codes with tables in other tensors (NF4 and its kin), or
//! blocks of bytes whose shape is not that of the weight. What they are is seen from the names and types of the tensors of a
//! checkpoint, not from the type of one.

use super::header::TensorInfo;
use super::tensor::TensorRef;
use crate::Result;
use loram_core::WeightFormat;
use std::fmt::Debug;
use std::sync::Arc;

/// How a weight is packed into its tensor.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Dimensions of the weight; those of the tensor count its bytes or codes.
    pub shape: Vec<usize>,
    /// How the bytes become values. It holds the tables of this weight.
    pub format: Arc<dyn WeightFormat>,
}

/// A way to pack weights.
pub trait Packing: Debug + Send + Sync {
    /// The weight in the tensor `info` of a checkpoint, if it is packed in this way; `tensor` finds others by name.
    ///
    /// # Errors
    /// Tables that are damaged or do not fit the tensor.
    fn find(&self, info: &TensorInfo, tensor: &dyn Fn(&str) -> Option<TensorRef>) -> Result<Option<Packed>>;
}

/// The packings that every checkpoint is opened with. To add one, write its file and its line here.
pub fn packings() -> &'static [&'static dyn Packing] {
    &[]
}
