//! 5 bits with a scale for 32 values, and with a smallest value. The fifth bits lie together.

use super::nearest::{blocks, fifth_bits, nibbles, scaled, shifted};
use super::{half, one_block};
use crate::weight::format::WeightFormat;

/// `Q5_0`: d·(q − 16).
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q5_0;

/// `Q5_1`: d·q + m.
#[derive(Debug, Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct Q5_1;

/// Calls `of` with the integers of 4 bytes of fifth bits and 16 of low bits.
#[inline(always)]
fn integers(codes: &[u8; 20], out: &mut [f32; 32], of: impl Fn(u32) -> f32) {
    let (high, low) = codes.split_first_chunk().expect("20 bytes");
    let high = u32::from_le_bytes(*high);
    let codes = one_block::<16>(low.first_chunk().expect("16 bytes"));
    let (low, upper) = out.split_at_mut(16);
    for (i, (o, code)) in low.iter_mut().zip(codes).enumerate() {
        *o = of(u32::from(code & 15) | (high >> i & 1) << 4);
    }
    for (i, (o, code)) in upper.iter_mut().zip(codes).enumerate() {
        *o = of(u32::from(code >> 4) | (high >> (16 + i) & 1) << 4);
    }
}

impl Q5_0 {
    /// Blocks of the nearest values, all finite. Panics where they are not whole blocks.
    pub fn quantised(values: &[f32]) -> Vec<u8> {
        blocks(values, 22, |block, out| {
            let (d, codes) = scaled(block, 5);
            out.extend(d);
            out.extend(fifth_bits(&codes));
            out.extend(nibbles(&codes));
        })
    }
}

impl Q5_1 {
    /// Blocks of the nearest values, all finite. Panics where they are not whole blocks.
    pub fn quantised(values: &[f32]) -> Vec<u8> {
        blocks(values, 24, |block, out| {
            let (d, codes) = shifted(block, 5);
            out.extend(d);
            out.extend(fifth_bits(&codes));
            out.extend(nibbles(&codes));
        })
    }
}

impl WeightFormat for Q5_0 {
    block_format!("Q5_0", 32, 22);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let d = half(block, 0);
            integers(block[2..].first_chunk().expect("20 bytes"), out, |q| d * (q as f32 - 16.0));
        }
    }
}

impl WeightFormat for Q5_1 {
    block_format!("Q5_1", 32, 24);

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        for (block, out) in bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut::<32>().0) {
            let (d, m) = (half(block, 0), half(block, 2));
            integers(block[4..].first_chunk().expect("20 bytes"), out, |q| d * q as f32 + m);
        }
    }
}
