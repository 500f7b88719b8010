//! 8 bits with a scale for 32 values.

use super::half;
use super::nearest::blocks;
use crate::weight::format::WeightFormat;

/// `Q8_0`: d·q.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q8_0;

impl Q8_0 {
    /// Blocks of the nearest values, all finite. Panics where they are not whole blocks.
    pub fn quantised(values: &[f32]) -> Vec<u8> {
        blocks(values, 34, |block, out| {
            let d = block.iter().fold(0.0f32, |most, x| most.max(x.abs())) / 127.0;
            let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
            out.extend(::half::f16::from_f32(d).to_le_bytes());
            out.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
        })
    }
}

impl WeightFormat for Q8_0 {
    block_format!("Q8_0", 32, 34);

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
