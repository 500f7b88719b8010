//! Weights that are more than numbers of one type in one tensor: codes with tables in other tensors (NF4 and its kin), or
//! blocks of bytes whose shape is not that of the weight. What they are is seen from `config.json`, and from the names and types of the
//! tensors of a checkpoint, not from the type of one.

mod awq;
mod bitsandbytes;
mod float8;
mod gptq;
mod repacked;
mod tables;

use super::dtype::DType;
use super::header::TensorInfo;
use super::tensor::TensorRef;
use crate::Result;
use crate::config::{CONFIG_FILE, Quantisation, read_object};
use loram_core::WeightFormat;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

/// How a weight is packed into its tensor.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The name of the weight, if it is not that of the tensor.
    pub name: Option<String>,
    /// What its type is called.
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

/// The packings of a model folder, by the quantisation that its `config.json` names. To add one, write its file and its line here.
///
/// # Errors
/// A `config.json` that cannot be read, or that names a quantisation that is not supported.
pub(super) fn packings(dir: &Path) -> Result<Vec<Box<dyn Packing>>> {
    let path = dir.join(CONFIG_FILE);
    let quantisation = if path.exists() { Quantisation::of(&read_object(&path)?, &path)? } else { None };
    Ok(match quantisation {
        // adapters of the program tell its files by their tables, also without a configuration
        None | Some(Quantisation::Bitsandbytes) => vec![Box::new(bitsandbytes::FourBits)],
        Some(Quantisation::Gptq(settings)) => vec![Box::new(gptq::Gptq(settings))],
        Some(Quantisation::Awq(settings)) => vec![Box::new(awq::Awq(settings))],
        Some(Quantisation::Float8(block)) => vec![Box::new(float8::Float8(block))],
    })
}
