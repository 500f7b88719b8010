//! Blocks of 32 of the nearest values, as gguf-py's `quantize` makes them.

use half::f16;

/// Codes of 32 values.
type Codes = [u8; 32];

/// Blocks of values with `pack(block)`. Panics where the values are not whole blocks.
pub(super) fn blocks(values: &[f32], bytes: usize, pack: impl Fn(&[f32; 32], &mut Vec<u8>)) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<32>();
    assert!(rest.is_empty(), "{} values are not whole blocks", values.len());
    let mut out = Vec::with_capacity(blocks.len() * bytes);
    blocks.iter().for_each(|block| pack(block, &mut out));
    out
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Scale and codes of d·(q − 2ᵇⁱᵗˢ⁻¹): the value farthest from 0 has code 0.
pub(super) fn scaled(block: &[f32; 32], bits: u32) -> ([u8; 2], Codes) {
    let half = (1u32 << (bits - 1)) as f32;
    let farthest = block.iter().fold(0.0f32, |most, &x| if x.abs() > most.abs() { x } else { most });
    let d = farthest / -half;
    let inverse = f64::from(inverse(d));
    let code = |x: f32| (f64::from(x) * inverse + f64::from(half) + 0.5) as f32;
    (f16::from_f32(d).to_le_bytes(), block.map(|x| code(x).trunc().min(2.0 * half - 1.0) as u8))
}

/// Scale, smallest value and codes of d·q + m.
pub(super) fn shifted(block: &[f32; 32], bits: u32) -> ([u8; 4], Codes) {
    let top = ((1u32 << bits) - 1) as f32;
    let least = block.iter().fold(f32::INFINITY, |m, &x| m.min(x));
    let most = block.iter().fold(f32::NEG_INFINITY, |m, &x| m.max(x));
    let d = (most - least) / top;
    let inverse = inverse(d);
    let ([d0, d1], [m0, m1]) = (f16::from_f32(d).to_le_bytes(), f16::from_f32(least).to_le_bytes());
    ([d0, d1, m0, m1], block.map(|x| ((x - least) * inverse + 0.5).trunc().min(top) as u8))
}

/// The low 4 bits of all codes: those of the first 16 values in low halves of bytes.
pub(super) fn nibbles(codes: &Codes) -> [u8; 16] {
    std::array::from_fn(|i| codes[i] & 15 | codes[i + 16] << 4)
}

/// The fifth bits of all codes.
pub(super) fn fifth_bits(codes: &Codes) -> [u8; 4] {
    let bits = codes.iter().enumerate().map(|(i, &q)| u32::from(q >> 4 & 1) << i);
    bits.fold(0u32, |all, bit| all | bit).to_le_bytes()
}
