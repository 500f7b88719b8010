//! The numbers of types in GGUF files.

use crate::checkpoint::DType;

/// The types that are read, with their numbers.
const TYPES: [(u32, DType); 18] = [
    (0, DType::F32),
    (1, DType::F16),
    (2, DType::Q4_0),
    (3, DType::Q4_1),
    (6, DType::Q5_0),
    (7, DType::Q5_1),
    (8, DType::Q8_0),
    (10, DType::Q2K),
    (11, DType::Q3K),
    (12, DType::Q4K),
    (13, DType::Q5K),
    (14, DType::Q6K),
    (24, DType::I8),
    (25, DType::I16),
    (26, DType::I32),
    (27, DType::I64),
    (28, DType::F64),
    (30, DType::BF16),
];

/// The types of ggml that are not read.
const OTHERS: [(u32, &str); 17] = [
    (9, "Q8_1"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (36, "IQ4_NL_4_4"),
    (37, "IQ4_NL_4_8"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

/// How a tensor is stored.
pub(super) enum Stored {
    /// In a type that is read.
    As(DType),
    /// In a type of ggml that is not.
    Unsupported(&'static str),
    /// In no type of ggml.
    Unknown,
}

/// The type with a number.
pub(super) fn stored(number: u32) -> Stored {
    match TYPES.iter().find(|t| t.0 == number) {
        Some((_, dtype)) => Stored::As(*dtype),
        None => match OTHERS.iter().find(|t| t.0 == number) {
            Some((_, name)) => Stored::Unsupported(name),
            None => Stored::Unknown,
        },
    }
}

/// The number of a type; `None` for one that GGUF does not have.
pub(super) fn number(dtype: DType) -> Option<u32> {
    TYPES.iter().find(|t| t.1 == dtype).map(|t| t.0)
}
