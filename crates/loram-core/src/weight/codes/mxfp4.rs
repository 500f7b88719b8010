//! MXFP4 of the OCP Microscaling formats (2310.10537): floating-point numbers of 4 bits, 32 of which share a power of two.

use super::levels::SharedBytes;
use super::lookup::{self, Tables};
use crate::weight::format::WeightFormat;
use std::fmt;
use std::sync::Arc;

/// A weight in MXFP4: codes of a sign, 2 bits of exponent and 1 of mantissa, two to a byte with the lower half first, and for every 32 of them
/// a byte s that stands for 2^(s − 127).
#[derive(Clone)]
pub struct Mxfp4 {
    /// The exponents of all blocks of the tensor.
    scales: SharedBytes,
    /// The first block of this weight.
    first: usize,
}

impl fmt::Debug for Mxfp4 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mxfp4(from block {})", self.first)
    }
}

/// The value of each code.
const LEVELS: [f32; 16] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];

impl Mxfp4 {
    /// Values that share an exponent.
    pub const BLOCK: usize = 32;

    /// A weight with these exponents, one for every block.
    pub fn new(scales: SharedBytes) -> Mxfp4 {
        Mxfp4 { scales, first: 0 }
    }
}

/// 2^(s − 127).
#[inline(always)]
fn power(s: u8) -> f32 {
    // the smallest is no normal number
    f32::from_bits(if s == 0 { 1 << 22 } else { u32::from(s) << 23 })
}

impl Tables for Mxfp4 {
    const UPPER_FIRST: bool = false;

    #[inline(always)]
    fn run(&self, at: usize) -> (usize, [f32; 16]) {
        let block = at / Mxfp4::BLOCK;
        let scale = power((*self.scales).as_ref()[self.first + block]);
        ((block + 1) * Mxfp4::BLOCK, LEVELS.map(|level| level * scale))
    }
}

impl WeightFormat for Mxfp4 {
    fn name(&self) -> &'static str {
        "MXFP4"
    }

    #[inline(always)]
    fn block_values(&self) -> usize {
        Mxfp4::BLOCK
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        Mxfp4::BLOCK / 2
    }

    fn cut_at(&self, first: usize) -> Option<Arc<dyn WeightFormat>> {
        let whole = first.is_multiple_of(Mxfp4::BLOCK);
        whole.then(|| Arc::new(Mxfp4 { first: self.first + first / Mxfp4::BLOCK, ..self.clone() }) as _)
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        lookup::decode(self, first, bytes, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_formula() {
        let scales: Vec<u8> = vec![127, 0, 1, 254, 120, 130];
        let bytes: Vec<u8> = (0..scales.len() * 16).map(|i| (i * 37 + 11) as u8).collect();
        let w = Mxfp4::new(Arc::new(scales.clone()));
        let value = |i: usize| {
            let code = bytes[i / 2] >> (4 * (i % 2)) & 15;
            let (exponent, mantissa) = (i32::from(code >> 1 & 3), f64::from(code & 1));
            let magnitude = match exponent {
                0 => mantissa / 2.0,
                _ => (1.0 + mantissa / 2.0) * f64::from(exponent - 1).exp2(),
            };
            let sign = if code & 8 == 0 { 1.0 } else { -1.0 };
            (sign * magnitude * f64::from(i32::from(scales[i / 32]) - 127).exp2()) as f32
        };
        let mut out = vec![f32::NAN; 192];
        w.read(0, &bytes, &mut out);
        out.iter().enumerate().for_each(|(i, x)| assert_eq!(*x, value(i), "{i}"));
        // a part, and a part of it
        let part = w.cut_at(64).expect("whole blocks");
        let mut found = vec![f32::NAN; 64];
        part.read(32, &bytes[48..80], &mut found);
        assert_eq!(found, out[96..160]);
        assert!(w.cut_at(16).is_none());
    }
}
