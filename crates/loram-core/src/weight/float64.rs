//! 64-bit floats.

use super::format::{WeightElement, WeightFormat};

/// 64-bit floats, `F64`, rounded to f32.
#[derive(Debug, Clone, Copy)]
pub struct Float64;

impl WeightElement for f64 {
    const FORMAT: &'static dyn WeightFormat = &Float64;
}

impl WeightFormat for Float64 {
    fn name(&self) -> &'static str {
        "F64"
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        size_of::<f64>()
    }

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (o, x) in out.iter_mut().zip(bytes.as_chunks().0) {
            *o = f64::from_le_bytes(*x) as f32;
        }
    }
}
