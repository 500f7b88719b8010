//! Element types of the safetensors format.

use std::fmt;

/// Element type of a stored tensor, as safetensors 0.8 names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
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
}

/// Name in the file, type, bits per element.
const TABLE: [(&str, DType, u32); 22] = [
    ("F64", DType::F64, 64),
    ("F32", DType::F32, 32),
    ("F16", DType::F16, 16),
    ("BF16", DType::BF16, 16),
    ("I64", DType::I64, 64),
    ("I32", DType::I32, 32),
    ("I16", DType::I16, 16),
    ("I8", DType::I8, 8),
    ("U64", DType::U64, 64),
    ("U32", DType::U32, 32),
    ("U16", DType::U16, 16),
    ("U8", DType::U8, 8),
    ("BOOL", DType::Bool, 8),
    ("C64", DType::C64, 64),
    ("F8_E4M3", DType::F8E4M3, 8),
    ("F8_E5M2", DType::F8E5M2, 8),
    ("F8_E8M0", DType::F8E8M0, 8),
    ("F8_E4M3FNUZ", DType::F8E4M3Fnuz, 8),
    ("F8_E5M2FNUZ", DType::F8E5M2Fnuz, 8),
    ("F6_E2M3", DType::F6E2M3, 6),
    ("F6_E3M2", DType::F6E3M2, 6),
    ("F4", DType::F4, 4),
];

impl DType {
    /// The type that a safetensors header names, or `None` for an unknown name.
    pub fn from_name(name: &str) -> Option<DType> {
        TABLE.iter().find(|t| t.0 == name).map(|t| t.1)
    }

    /// The name in a safetensors header, e.g. `BF16`.
    pub fn name(self) -> &'static str {
        TABLE.iter().find(|t| t.1 == self).expect("every type is in the table").0
    }

    /// Bits per element (4 and 6 for the packed types).
    pub fn bits(self) -> usize {
        TABLE.iter().find(|t| t.1 == self).expect("every type is in the table").2 as usize
    }

    /// True for the types that weights can be computed with: F64, F32, F16 and BF16.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F64 | DType::F32 | DType::F16 | DType::BF16)
    }

    /// Bytes of a tensor of this shape; `None` when that overflows or is no whole number of bytes.
    pub fn bytes_for(self, shape: &[usize]) -> Option<usize> {
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let bits = elements.checked_mul(self.bits())?;
        (bits % 8 == 0).then_some(bits / 8)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
