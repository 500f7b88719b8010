//! NF4 and FP4 of bitsandbytes: 16 levels from −1 to 1, times the largest magnitude of a block.

use super::lookup::{self, Tables};
use super::{SharedBytes, ValueType, f32_at};
use crate::weight::format::WeightFormat;
use std::fmt;
use std::ops::Range;

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

    #[inline(always)]
    fn get(&self, i: usize) -> f32 {
        match self {
            BlockScales::F32(scales) => f32_at((**scales).as_ref(), i),
            BlockScales::Nested { codes, scales, block, map, offset } => {
                map[usize::from((**codes).as_ref()[i])] * f32_at((**scales).as_ref(), i / block) + offset
            }
        }
    }
}

/// A weight in NF4 or FP4: two codes in a byte, the upper half first, in blocks of values that share a scale. Blocks count values of the
/// whole weight, also where a row is no whole number of them. A value is what bitsandbytes' `dequantize_4bit` gives, bit for bit: level ·
/// scale in f32, rounded to the type that the weight had.
#[derive(Debug, Clone)]
pub struct FourBit {
    kind: FourBitType,
    block: usize,
    values: ValueType,
    scales: BlockScales,
}

impl FourBit {
    /// A weight of `kind` with a scale for every `block` values, an even number. Panics where it is odd or 0.
    pub fn new(kind: FourBitType, block: usize, values: ValueType, scales: BlockScales) -> FourBit {
        assert!(block > 0 && block.is_multiple_of(2), "blocks of {block} values");
        FourBit { kind, block, values, scales }
    }

    /// The levels.
    pub fn kind(&self) -> FourBitType {
        self.kind
    }

    /// Values that share a scale.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The type that values are rounded to.
    pub fn values(&self) -> ValueType {
        self.values
    }

    /// The scales of blocks.
    pub fn scales(&self, blocks: Range<usize>) -> impl Iterator<Item = f32> + '_ {
        blocks.map(|block| self.scales.get(block))
    }
}

impl Tables for FourBit {
    #[inline(always)]
    fn run(&self, at: usize) -> (usize, [f32; 16]) {
        let block = at / self.block;
        let (scale, mut table) = (self.scales.get(block), *self.kind.levels());
        match self.values {
            ValueType::F32 => table.iter_mut().for_each(|x| *x *= scale),
            ValueType::BF16 => table.iter_mut().for_each(|x| *x = ValueType::BF16.round(*x * scale)),
            ValueType::F16 => table.iter_mut().for_each(|x| *x = ValueType::F16.round(*x * scale)),
        }
        ((block + 1) * self.block, table)
    }
}

impl WeightFormat for FourBit {
    fn name(&self) -> &'static str {
        self.kind.name()
    }

    #[inline(always)]
    fn block_values(&self) -> usize {
        2
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        1
    }

    fn four_bit(&self) -> Option<&FourBit> {
        Some(self)
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        lookup::decode(self, first, bytes, out);
    }
}
