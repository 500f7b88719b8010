//! NF4 and FP4 of bitsandbytes: 16 levels from −1 to 1, times the largest magnitude of a block.

use super::levels::{BlockScales, FourBitParts, FourBitType};
use super::lookup::{self, Tables};
use super::value_type::ValueType;
use crate::weight::format::WeightFormat;

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

    fn four_bit(&self) -> Option<FourBitParts<'_>> {
        let FourBit { kind, block, values, scales } = self;
        Some(FourBitParts { kind: *kind, block: *block, values: *values, scales })
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        lookup::decode(self, first, bytes, out);
    }
}
