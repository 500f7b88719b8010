//! bfloat16.

use super::format::{WeightElement, WeightFormat};
use super::sums::Sums;
use half::bf16;

/// bfloat16, `BF16`.
#[derive(Debug, Clone, Copy)]
pub struct BFloat16;

impl WeightElement for bf16 {
    const FORMAT: &'static dyn WeightFormat = &BFloat16;
}

/// Exact, and (unlike `half`'s own loop) inlined where the caller's vector unit is known.
#[inline(always)]
fn to_f32(x: [u8; 2]) -> f32 {
    f32::from_bits(u32::from(u16::from_le_bytes(x)) << 16)
}

impl WeightFormat for BFloat16 {
    fn name(&self) -> &'static str {
        "BF16"
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        size_of::<bf16>()
    }

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (o, x) in out.iter_mut().zip(bytes.as_chunks().0) {
            *o = to_f32(*x);
        }
    }

    #[inline(always)]
    fn add_to(&self, _: usize, bytes: &[u8], sums: &mut Sums) {
        sums.add(bytes.as_chunks().0, to_f32);
    }
}
