//! Weights in the formats in which checkpoints store them.
//!
//! [`WeightFormat`] says how bytes become values, once for each format; [`WeightBytes`] says where the bytes are: in
//! memory, or in a file that is read piece by piece. [`StoredWeight`] is a matrix of both.

mod bfloat16;
mod bytes;
mod codes;
mod float16;
mod float32;
mod float64;
mod float8;
mod format;
mod ggml;
mod order;
mod stored;
mod sums;

pub use bfloat16::BFloat16;
pub use bytes::WeightBytes;
pub use codes::{
    BlockScales, FourBit, FourBitOptions, FourBitParts, FourBitType, GroupTables, Grouped, Mxfp4, NestedScales,
    SharedBytes, ValueType, dynamic_map, nested_scales, quantise_4bit,
};
pub use float8::ScaledFloat8;
pub use float16::Float16;
pub use float32::Float32;
pub use float64::Float64;
pub use format::{WeightElement, WeightFormat};
pub use ggml::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
pub use order::RowOrder;
pub use stored::StoredWeight;
pub use sums::Sums;
