//! 8 bits with a scale for 32 values.

use super::half;
use crate::weight::format::WeightFormat;

/// `Q8_0`: d·q.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q8_0;

impl WeightFormat for Q8_0 {
    fn name(&self) -> &'static str {
        "Q8_0"
    }

    #[inline(always)]
    fn block_values(&self) -> usize {
        32
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        34
    }

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<34>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let d = half(block, 0);
            for (o, q) in out.iter_mut().zip(&block[2..]) {
                *o = d * f32::from(*q as i8);
            }
        }
    }
}
