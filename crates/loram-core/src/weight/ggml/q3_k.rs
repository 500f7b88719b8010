//! 3 bits in groups of 16 with a scale of 6 bits, sixteen groups to a block.

use super::half;
use crate::weight::format::WeightFormat;

/// `Q3_K`: (d·(s − 32))·(q − 4), with s of the group.
#[derive(Debug, Clone, Copy)]
pub struct Q3K;

impl WeightFormat for Q3K {
    block_format!("Q3_K", 256, 110);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<256>().0) {
            let d = half(block, 108);
            let third: &[u8; 32] = block.first_chunk().expect("32 bytes");
            let packed: &[u8; 12] = block[96..].first_chunk().expect("12 bytes");
            // low bits: four of two groups in each of 8 bytes; high bits: two of four groups in each of 4
            let scale = |g: usize| {
                let (low, high) = (packed[g % 8] >> (4 * (g / 8)) & 15, packed[8 + g % 4] >> (2 * (g / 4)) & 3);
                d * (f32::from(low | high << 4) - 32.0)
            };
            for (pair, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let codes: &[u8; 32] = block[32 + 32 * (pair / 4)..].first_chunk().expect("32 bytes");
                let scales = [scale(2 * pair), scale(2 * pair + 1)];
                for (i, (o, (q, third))) in out.iter_mut().zip(codes.iter().zip(third)).enumerate() {
                    let q = q >> (2 * (pair % 4)) & 3 | (third >> pair & 1) << 2;
                    *o = scales[i / 16] * (f32::from(q) - 4.0);
                }
            }
        }
    }
}
