//! 2 bits in groups of 16 with a scale and a minimum of 4 bits each, sixteen groups to a block.

use super::half;
use crate::weight::format::WeightFormat;

/// `Q2_K`: (d·s)·q − (dmin·m), with s and m of the group.
#[derive(Debug, Clone, Copy)]
pub struct Q2K;

impl WeightFormat for Q2K {
    block_format!("Q2_K", 256, 84);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<84>().0.iter().zip(out.as_chunks_mut::<256>().0) {
            let (d, dmin) = (half(block, 80), half(block, 82));
            let groups: &[u8; 16] = block.first_chunk().expect("16 bytes");
            // a byte holds values of four pairs of groups, 32 values apart
            for (pair, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let codes: &[u8; 32] = block[16 + 32 * (pair / 4)..].first_chunk().expect("32 bytes");
                let of = [groups[2 * pair], groups[2 * pair + 1]];
                let (scale, minimum) = (of.map(|g| d * f32::from(g & 15)), of.map(|g| dmin * f32::from(g >> 4)));
                for (i, (o, q)) in out.iter_mut().zip(codes).enumerate() {
                    *o = scale[i / 16] * f32::from(q >> (2 * (pair % 4)) & 3) - minimum[i / 16];
                }
            }
        }
    }
}
