//! 4 bits in groups of 32 with a scale and a minimum of 6 bits each, eight groups to a block.

use super::grouped::scales_and_minima;
use super::{half, one_block};
use crate::weight::format::WeightFormat;

/// `Q4_K`: (d·s)·q − (dmin·m), with s and m of the group.
#[derive(Debug, Clone, Copy)]
pub struct Q4K;

impl WeightFormat for Q4K {
    block_format!("Q4_K", 256, 144);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<256>().0) {
            let (d, dmin) = (half(block, 0), half(block, 2));
            let (scales, minima) = scales_and_minima(block[4..].first_chunk().expect("12 bytes"));
            let codes = block[16..].as_chunks::<32>().0;
            // a byte holds a value of one group and a value of the next
            for (i, (codes, out)) in codes.iter().zip(out.as_chunks_mut::<64>().0).enumerate() {
                let codes = one_block(codes);
                let group = |g: usize| (d * f32::from(scales[g]), dmin * f32::from(minima[g]));
                let (low, high) = out.split_at_mut(32);
                let (scale, minimum) = group(2 * i);
                for (o, q) in low.iter_mut().zip(codes) {
                    *o = scale * f32::from(q & 15) - minimum;
                }
                let (scale, minimum) = group(2 * i + 1);
                for (o, q) in high.iter_mut().zip(codes) {
                    *o = scale * f32::from(q >> 4) - minimum;
                }
            }
        }
    }
}
