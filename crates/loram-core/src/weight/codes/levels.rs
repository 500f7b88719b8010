//! The levels of 4-bit types, and the scales of blocks.

use super::value_type::ValueType;
use std::fmt;
use std::sync::Arc;

/// Bytes of a table, in memory or in a mapped file.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// The levels of a 4-bit type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FourBitType {
    /// Quantiles of the normal distribution with an exact 0 (2305.14314).
    Nf4,
    /// Floating-point numbers with a sign, 2 bits of exponent and 1 of mantissa, over 12.
    Fp4,
}

#[allow(clippy::excessive_precision)]
const NF4: [f32; 16] = [
    -1.0,
    -0.6961928009986877,
    -0.5250730514526367,
    -0.39491748809814453,
    -0.28444138169288635,
    -0.18477343022823334,
    -0.09105003625154495,
    0.0,
    0.07958029955625534,
    0.16093020141124725,
    0.24611230194568634,
    0.33791524171829224,
    0.44070982933044434,
    0.5626170039176941,
    0.7229568362236023,
    1.0,
];

/// By the bits of the numbers: sign, exponent, mantissa.
const FP4: [f32; 16] = {
    const MAGNITUDES: [f32; 8] = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let (mut levels, mut i) = ([0.0; 16], 0);
    while i < 8 {
        levels[i] = MAGNITUDES[i] / 12.0;
        // bitsandbytes has no −0
        levels[8 + i] = if i == 0 { 0.0 } else { -(MAGNITUDES[i] / 12.0) };
        i += 1;
    }
    levels
};

impl FourBitType {
    /// The type with a name of bitsandbytes: `nf4`, `fp4`.
    pub fn parse(name: &str) -> Option<FourBitType> {
        [FourBitType::Nf4, FourBitType::Fp4].into_iter().find(|t| t.name().eq_ignore_ascii_case(name))
    }

    /// `NF4` or `FP4`.
    pub fn name(self) -> &'static str {
        match self {
            FourBitType::Nf4 => "NF4",
            FourBitType::Fp4 => "FP4",
        }
    }

    /// The level of each code.
    pub fn levels(self) -> &'static [f32; 16] {
        match self {
            FourBitType::Nf4 => &NF4,
            FourBitType::Fp4 => &FP4,
        }
    }
}

/// The largest magnitudes of the blocks of a weight.
#[derive(Clone)]
pub enum BlockScales {
    /// In f32.
    F32(SharedBytes),
    /// Quantised: a code of 8 bits for each block, into `map`, times a scale in f32 for every `block` of them, plus `offset`.
    Nested {
        /// The codes.
        codes: SharedBytes,
        /// The scales of blocks of codes.
        scales: SharedBytes,
        /// Codes that share a scale.
        block: usize,
        /// The value of each code.
        map: Box<[f32; 256]>,
        /// Added to every magnitude: their mean.
        offset: f32,
    },
}

impl fmt::Debug for BlockScales {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockScales::F32(_) => f.write_str("F32"),
            BlockScales::Nested { block, offset, .. } => write!(f, "Nested({block}, {offset})"),
        }
    }
}

impl BlockScales {
    /// Number of blocks that have one.
    pub fn len(&self) -> usize {
        match self {
            BlockScales::F32(scales) => (**scales).as_ref().len() / 4,
            BlockScales::Nested { codes, .. } => (**codes).as_ref().len(),
        }
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the tables.
    pub fn bytes(&self) -> usize {
        match self {
            BlockScales::F32(scales) => (**scales).as_ref().len(),
            BlockScales::Nested { codes, scales, .. } => (**codes).as_ref().len() + (**scales).as_ref().len() + 1024,
        }
    }

    /// The scale of block `i`.
    #[inline(always)]
    pub fn get(&self, i: usize) -> f32 {
        match self {
            BlockScales::F32(scales) => f32_at((**scales).as_ref(), i),
            BlockScales::Nested { codes, scales, block, map, offset } => {
                map[usize::from((**codes).as_ref()[i])] * f32_at((**scales).as_ref(), i / block) + offset
            }
        }
    }
}

/// An f32 of a table.
#[inline(always)]
fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_le_bytes(*bytes[4 * at..].first_chunk().expect("a table of the length that was checked"))
}

/// The parts of a weight in NF4 or FP4 beside its codes.
#[derive(Debug, Clone, Copy)]
pub struct FourBitParts<'a> {
    /// The levels.
    pub kind: FourBitType,
    /// Values that share a scale.
    pub block: usize,
    /// The type that values are rounded to.
    pub values: ValueType,
    /// The scales of blocks.
    pub scales: &'a BlockScales,
}
