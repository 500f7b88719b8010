//! The block formats of ggml, which GGUF files hold: integers of a few bits with scales in front of, behind or between them.
//! Every value is what `dequantize` of gguf-py computes, bit for bit.
//!
//! Blocks of 32 values have a scale in half precision, those with `_1` also a smallest value. Blocks of 256 (`K`) are cut into groups of
//! 16 or 32, whose scales are integers themselves.

/// Name, values and bytes of a block, in the implementation of [`WeightFormat`](super::WeightFormat).
macro_rules! block_format {
    ($name:literal, $values:literal, $bytes:literal) => {
        fn name(&self) -> &'static str {
            $name
        }

        #[inline(always)]
        fn block_values(&self) -> usize {
            $values
        }

        #[inline(always)]
        fn block_bytes(&self) -> usize {
            $bytes
        }
    };
}

mod grouped;
mod nearest;
mod q2_k;
mod q3_k;
mod q4;
mod q4_k;
mod q5;
mod q5_k;
mod q6_k;
mod q8;

pub use q2_k::Q2K;
pub use q3_k::Q3K;
pub use q4::{Q4_0, Q4_1};
pub use q4_k::Q4K;
pub use q5::{Q5_0, Q5_1};
pub use q5_k::Q5K;
pub use q6_k::Q6K;
pub use q8::Q8_0;

/// Half precision as f32, exactly. Without branches and without a call, since it stands in loops that are to be vectorised,
/// and without denormal numbers of f32, which are slow: the scales of small weights are denormal in half precision.
#[inline(always)]
fn half(bytes: &[u8], at: usize) -> f32 {
    let x = u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let (sign, rest) = ((x & 0x8000) << 16, (x & 0x7fff) << 13);
    const SMALLEST: u32 = 113 << 23;
    let denormal = f32::from_bits(rest + SMALLEST) - f32::from_bits(SMALLEST);
    let magnitude = match rest >> 23 {
        0 => denormal.to_bits(),
        31 => rest | 0x7f80_0000,
        _ => rest + (112 << 23),
    };
    f32::from_bits(sign | magnitude)
}

/// The integers of a block, which the compiler is to treat as a block of their own: it would otherwise make vectors across blocks,
/// with gathers and scatters, which take six times as long.
#[inline(always)]
fn one_block<const N: usize>(codes: &[u8; N]) -> [u8; N] {
    std::hint::black_box(*codes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::WeightFormat;

    #[test]
    fn every_half_is_exact() {
        for bits in 0..=u16::MAX {
            let (found, want) = (half(&bits.to_le_bytes(), 0), half::f16::from_bits(bits).to_f32());
            assert!(found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan(), "{bits:#x}: {found} {want}");
        }
    }

    #[test]
    fn blocks_have_the_sizes_of_ggml() {
        let formats: [(&dyn WeightFormat, &str, usize, usize); 10] = [
            (&Q4_0, "Q4_0", 32, 18),
            (&Q4_1, "Q4_1", 32, 20),
            (&Q5_0, "Q5_0", 32, 22),
            (&Q5_1, "Q5_1", 32, 24),
            (&Q8_0, "Q8_0", 32, 34),
            (&Q2K, "Q2_K", 256, 84),
            (&Q3K, "Q3_K", 256, 110),
            (&Q4K, "Q4_K", 256, 144),
            (&Q5K, "Q5_K", 256, 176),
            (&Q6K, "Q6_K", 256, 210),
        ];
        for (format, name, values, bytes) in formats {
            assert_eq!((format.name(), format.block_values(), format.block_bytes()), (name, values, bytes));
            // blocks from anywhere, as the same blocks alone
            let data: Vec<u8> = (0..bytes * 5).map(|i| (i * 97 % 89) as u8).collect();
            let (mut all, mut two) = (vec![0.0; values * 5], vec![0.0; values * 2]);
            format.read(0, &data, &mut all);
            format.read(values * 2, &data[bytes * 2..bytes * 4], &mut two);
            assert_eq!(two, all[values * 2..values * 4], "{name}");
        }
    }
}
