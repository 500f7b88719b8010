//! The interface of a packing.

use super::super::dtype::DType;
use super::super::header::TensorInfo;
use super::super::tensor::TensorRef;
use crate::Result;
use loram_core::WeightFormat;
use std::fmt::Debug;
use std::sync::Arc;

/// How a weight is packed into its tensor.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The name of the weight, if it is not that of the tensor.
    pub name: Option<String>,
    /// The name of its type.
    pub dtype: DType,
    /// Dimensions of the weight; those of the tensor count its bytes or codes.
    pub shape: Vec<usize>,
    /// How the bytes become values. It holds the tables of this weight.
    pub format: Arc<dyn WeightFormat>,
    /// The bytes of the weight, where those of the tensor are in another order.
    pub bytes: Option<Arc<Vec<u8>>>,
    /// Bytes of the tables that stay in memory or mapped.
    pub tables: usize,
    /// The tensors of its tables, which are no tensors of the model.
    pub companions: Vec<String>,
}

impl Packed {
    /// A weight of this shape in the bytes of its tensor.
    pub fn new(dtype: DType, shape: Vec<usize>, format: Arc<dyn WeightFormat>) -> Packed {
        Packed { name: None, dtype, shape, format, bytes: None, tables: 0, companions: Vec::new() }
    }
}

/// A way to pack weights.
pub trait Packing: Debug + Send + Sync {
    /// The weight in the tensor `info` of a checkpoint, which is called `name` there, if it is packed in this way; `tensor` finds others
    /// by name.
    ///
    /// # Errors
    /// Tables that are damaged or do not fit the tensor.
    fn find(
        &self,
        name: &str,
        info: &TensorInfo,
        tensor: &(dyn Fn(&str) -> Option<TensorRef> + Sync),
    ) -> Result<Option<Packed>>;
}
