//! Element types of the safetensors format, the block types of GGUF, and names of weights that several tensors hold.

use half::{bf16, f16};
use loram_core::{Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, WeightElement, WeightFormat};
use std::fmt;

/// Element type of a stored tensor, as safetensors 0.8 and ggml name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, non_camel_case_types)]
pub enum DType {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
    C64,
    F8E4M3,
    F8E5M2,
    F8E8M0,
    F8E4M3Fnuz,
    F8E5M2Fnuz,
    F6E2M3,
    F6E3M2,
    F4,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Nf4,
    Fp4,
    Int4,
    Int8Groups,
    Fp8,
    Mxfp4,
}

/// Name in the file, type, number of elements that are stored together, bytes that they take; of safetensors.
const TABLE: [(&str, DType, usize, usize); 22] = [
    ("F64", DType::F64, 1, 8),
    ("F32", DType::F32, 1, 4),
    ("F16", DType::F16, 1, 2),
    ("BF16", DType::BF16, 1, 2),
    ("I64", DType::I64, 1, 8),
    ("I32", DType::I32, 1, 4),
    ("I16", DType::I16, 1, 2),
    ("I8", DType::I8, 1, 1),
    ("U64", DType::U64, 1, 8),
    ("U32", DType::U32, 1, 4),
    ("U16", DType::U16, 1, 2),
    ("U8", DType::U8, 1, 1),
    ("BOOL", DType::Bool, 1, 1),
    ("C64", DType::C64, 1, 8),
    ("F8_E4M3", DType::F8E4M3, 1, 1),
    ("F8_E5M2", DType::F8E5M2, 1, 1),
    ("F8_E8M0", DType::F8E8M0, 1, 1),
    ("F8_E4M3FNUZ", DType::F8E4M3Fnuz, 1, 1),
    ("F8_E5M2FNUZ", DType::F8E5M2Fnuz, 1, 1),
    ("F6_E2M3", DType::F6E2M3, 4, 3),
    ("F6_E3M2", DType::F6E3M2, 4, 3),
    ("F4", DType::F4, 2, 1),
];

/// The same of ggml's blocks, which only GGUF files have.
const BLOCKS: [(&str, DType, usize, usize); 10] = [
    ("Q4_0", DType::Q4_0, 32, 18),
    ("Q4_1", DType::Q4_1, 32, 20),
    ("Q5_0", DType::Q5_0, 32, 22),
    ("Q5_1", DType::Q5_1, 32, 24),
    ("Q8_0", DType::Q8_0, 32, 34),
    ("Q2_K", DType::Q2K, 256, 84),
    ("Q3_K", DType::Q3K, 256, 110),
    ("Q4_K", DType::Q4K, 256, 144),
    ("Q5_K", DType::Q5K, 256, 176),
    ("Q6_K", DType::Q6K, 256, 210),
];

/// Codes with tables in other tensors: what a weight is called that several tensors hold.
const PACKED: [(&str, DType, usize, usize); 6] = [
    ("NF4", DType::Nf4, 2, 1),
    ("FP4", DType::Fp4, 2, 1),
    ("INT4", DType::Int4, 2, 1),
    ("INT8", DType::Int8Groups, 1, 1),
    ("FP8", DType::Fp8, 1, 1),
    ("MXFP4", DType::Mxfp4, 32, 16),
];

impl DType {
    /// The type that a safetensors header names, or `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|t| t.0 == name).map(|t| t.1)
    }

    /// The name in a file, e.g. `BF16`.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// The format of weights in this type; `None` for types that weights are not read from.
    pub fn format(self) -> Option<&'static dyn WeightFormat> {
        Some(match self {
            DType::F64 => f64::FORMAT,
            DType::F32 => f32::FORMAT,
            DType::F16 => f16::FORMAT,
            DType::BF16 => bf16::FORMAT,
            DType::Q4_0 => &Q4_0,
            DType::Q4_1 => &Q4_1,
            DType::Q5_0 => &Q5_0,
            DType::Q5_1 => &Q5_1,
            DType::Q8_0 => &Q8_0,
            DType::Q2K => &Q2K,
            DType::Q3K => &Q3K,
            DType::Q4K => &Q4K,
            DType::Q5K => &Q5K,
            DType::Q6K => &Q6K,
            _ => return None,
        })
    }

    /// True for the types that have a [`format`](DType::format).
    pub fn is_float(self) -> bool {
        self.format().is_some()
    }

    /// Number of elements that are stored together.
    pub(crate) fn block_values(self) -> usize {
        self.row().2
    }

    /// True for the block types of GGUF and for codes with tables, which are read but not written to safetensors.
    pub fn is_quantised(self) -> bool {
        BLOCKS.iter().chain(&PACKED).any(|t| t.1 == self)
    }

    /// Bits per element, rounded up.
    pub(crate) fn bits(self) -> usize {
        let (_, _, elements, bytes) = *self.row();
        (8 * bytes).div_ceil(elements)
    }

    /// Bytes of a tensor of this shape; `None` when that overflows or is not a whole number of bytes.
    pub fn bytes_for(self, shape: &[usize]) -> Option<usize> {
        let (_, _, elements, bytes) = *self.row();
        let all = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let total = all.checked_mul(bytes)?;
        total.is_multiple_of(elements).then_some(total / elements)
    }

    fn row(self) -> &'static (&'static str, DType, usize, usize) {
        TABLE.iter().chain(&BLOCKS).chain(&PACKED).find(|t| t.1 == self).expect("every type is in the table")
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_the_table() {
        for (name, dtype, elements, bytes) in TABLE.into_iter().chain(BLOCKS).chain(PACKED) {
            assert_eq!(DType::from_name(name), Some(dtype).filter(|d| !d.is_quantised()));
            assert_eq!(dtype.name(), name);
            if let Some(format) = dtype.format() {
                assert_eq!((format.name(), format.block_values(), format.block_bytes()), (name, elements, bytes));
            }
        }
    }
}
