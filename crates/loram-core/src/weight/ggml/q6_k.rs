//! 6 bits in groups of 16 with a scale of 8 bits, sixteen groups to a block.

use super::half;
use crate::weight::format::WeightFormat;

/// `Q6_K`: (d·s)·(q − 32), with s of the group.
#[derive(Debug, Clone, Copy)]
pub struct Q6K;

impl WeightFormat for Q6K {
    block_format!("Q6_K", 256, 210);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<210>().0.iter().zip(out.as_chunks_mut::<256>().0) {
            let d = half(block, 208);
            let scales: &[u8; 16] = block[192..].first_chunk().expect("16 bytes");
            // two halves of 128 values: 64 bytes of low bits, 32 of high bits
            for (n, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
                let low: &[u8; 64] = block[64 * n..].first_chunk().expect("64 bytes");
                let high: &[u8; 32] = block[128 + 32 * n..].first_chunk().expect("32 bytes");
                for (k, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                    let low: &[u8; 32] = low[32 * (k % 2)..].first_chunk().expect("32 bytes");
                    let (first, second) = (scales[8 * n + 2 * k], scales[8 * n + 2 * k + 1]);
                    let scales = [first, second].map(|s| d * f32::from(s as i8));
                    for (i, o) in out.iter_mut().enumerate() {
                        let q = low[i] >> (4 * (k / 2)) & 15 | (high[i] >> (2 * k) & 3) << 4;
                        *o = scales[i / 16] * (f32::from(q) - 32.0);
                    }
                }
            }
        }
    }
}
