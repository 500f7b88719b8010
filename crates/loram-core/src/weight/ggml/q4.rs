//! 4 bits with a scale for 32 values, and with a smallest value.

use super::nearest::{blocks, nibbles as packed, scaled, shifted};
use super::{half, one_block};
use crate::weight::format::WeightFormat;

/// `Q4_0`: d·(q − 8).
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q4_0;

/// `Q4_1`: d·q + m.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q4_1;

/// Calls `of` with the integers of 16 bytes: low halves are the first 16 values, high halves the others.
#[inline(always)]
fn nibbles(codes: &[u8; 16], out: &mut [f32; 32], of: impl Fn(u8) -> f32) {
    let codes = one_block(codes);
    let (low, high) = out.split_at_mut(16);
    for (o, code) in low.iter_mut().zip(codes) {
        *o = of(code & 15);
    }
    for (o, code) in high.iter_mut().zip(codes) {
        *o = of(code >> 4);
    }
}

impl Q4_0 {
    /// Blocks of the nearest values, all finite. Panics where they are not whole blocks.
    pub fn quantised(values: &[f32]) -> Vec<u8> {
        blocks(values, 18, |block, out| {
            let (d, codes) = scaled(block, 4);
            out.extend(d);
            out.extend(packed(&codes));
        })
    }
}

impl Q4_1 {
    /// Blocks of the nearest values, all finite. Panics where they are not whole blocks.
    pub fn quantised(values: &[f32]) -> Vec<u8> {
        blocks(values, 20, |block, out| {
            let (d, codes) = shifted(block, 4);
            out.extend(d);
            out.extend(packed(&codes));
        })
    }
}

impl WeightFormat for Q4_0 {
    block_format!("Q4_0", 32, 18);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let d = half(block, 0);
            let codes = block[2..].first_chunk().expect("16 bytes");
            nibbles(codes, out, |q| d * (f32::from(q) - 8.0));
        }
    }
}

impl WeightFormat for Q4_1 {
    block_format!("Q4_1", 32, 20);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let (d, m) = (half(block, 0), half(block, 2));
            let codes = block[4..].first_chunk().expect("16 bytes");
            nibbles(codes, out, |q| d * f32::from(q) + m);
        }
    }
}
