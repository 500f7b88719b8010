//! 32-bit floats.

use super::format::{WeightElement, WeightFormat};
use super::sums::Sums;

/// 32-bit floats, `F32`.
#[derive(Debug, Clone, Copy)]
pub struct Float32;

impl WeightElement for f32 {
    const FORMAT: &'static dyn WeightFormat = &Float32;
}

impl WeightFormat for Float32 {
    fn name(&self) -> &'static str {
        "F32"
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        size_of::<f32>()
    }

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (o, x) in out.iter_mut().zip(bytes.as_chunks().0) {
            *o = f32::from_le_bytes(*x);
        }
    }

    #[inline(always)]
    fn add_to(&self, _: usize, bytes: &[u8], sums: &mut Sums) {
        sums.add(bytes.as_chunks().0, f32::from_le_bytes);
    }
}
