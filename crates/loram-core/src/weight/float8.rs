//! Numbers of 8 bits with scales beside them.

use super::codes::ValueType;
use super::format::WeightFormat;

/// A weight (rows, cols) in float8 with 4 bits of exponent and 3 of mantissa (`F8_E4M3`, finite numbers and NaN), times the scale of the
/// block (height, width) that a value is in, rounded to the number type of the model.
#[derive(Debug, Clone)]
pub struct ScaledFloat8 {
    cols: usize,
    block: (usize, usize),
    /// Blocks across.
    across: usize,
    /// Row-major (rows / height, cols / width), rounded up.
    scales: Vec<f32>,
    values: ValueType,
}

impl ScaledFloat8 {
    /// A weight with a scale for each block (height, width); with one for all of it where both are at least its sides. Panics where the
    /// number of scales does not fit.
    pub fn new(
        (rows, cols): (usize, usize),
        block: (usize, usize),
        scales: Vec<f32>,
        values: ValueType,
    ) -> ScaledFloat8 {
        let across = cols.div_ceil(block.1);
        assert_eq!(scales.len(), rows.div_ceil(block.0) * across, "scales of blocks {block:?} of {rows}×{cols}");
        ScaledFloat8 { cols, block, across, scales, values }
    }
}

/// Exact. Without branches, and without denormal numbers of f32.
#[inline(always)]
fn to_f32(x: u8) -> f32 {
    let x = u32::from(x);
    let (sign, rest) = ((x & 0x80) << 24, (x & 0x7f) << 20);
    const SMALLEST: u32 = 121 << 23;
    let denormal = f32::from_bits(rest + SMALLEST) - f32::from_bits(SMALLEST);
    let magnitude = match x & 0x7f {
        0..8 => denormal.to_bits(),
        0x7f => 0x7fc0_0000,
        _ => rest + (120 << 23),
    };
    f32::from_bits(sign | magnitude)
}

impl WeightFormat for ScaledFloat8 {
    fn name(&self) -> &'static str {
        "FP8"
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        1
    }

    fn is_quantised(&self) -> bool {
        true
    }

    #[inline(always)]
    fn decode(&self, first: usize, bytes: &[u8], out: &mut [f32]) {
        let mut at = 0;
        while at < out.len() {
            let (row, column) = ((first + at) / self.cols, (first + at) % self.cols);
            let width = (self.block.1 - column % self.block.1).min(self.cols - column).min(out.len() - at);
            let scale = self.scales[row / self.block.0 * self.across + column / self.block.1];
            let (bytes, out) = (&bytes[at..at + width], &mut out[at..at + width]);
            match self.values {
                ValueType::F32 => out.iter_mut().zip(bytes).for_each(|(o, x)| *o = to_f32(*x) * scale),
                values => out.iter_mut().zip(bytes).for_each(|(o, x)| *o = values.round(to_f32(*x) * scale)),
            }
            at += width;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_formula() {
        for x in 0..=255u8 {
            let (exponent, mantissa) = (i32::from(x >> 3 & 15), f32::from(x & 7));
            let magnitude = match exponent {
                0 => mantissa * (-9f32).exp2(),
                _ => (1.0 + mantissa / 8.0) * ((exponent - 7) as f32).exp2(),
            };
            let found = to_f32(x);
            if x & 0x7f == 0x7f {
                assert!(found.is_nan());
            } else {
                assert_eq!(found, if x < 0x80 { magnitude } else { -magnitude }, "{x:#x}");
            }
        }
    }

    #[test]
    fn blocks_have_their_scales() {
        let (rows, cols, block) = (5, 7, (2, 3));
        let scales: Vec<f32> = (0..9).map(|i| 1.0 + i as f32).collect();
        let w = ScaledFloat8::new((rows, cols), block, scales.clone(), ValueType::F32);
        // 0x38 is 1
        let (bytes, mut out) = (vec![0x38; rows * cols], vec![0.0; rows * cols]);
        w.read(0, &bytes, &mut out);
        for (i, x) in out.iter().enumerate() {
            assert_eq!(*x, scales[i / cols / block.0 * 3 + i % cols / block.1], "{i}");
        }
        let mut part = vec![0.0; 9];
        w.read(10, &bytes[10..19], &mut part);
        assert_eq!(part, out[10..19]);
    }
}
