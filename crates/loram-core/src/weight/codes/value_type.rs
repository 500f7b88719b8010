//! Rounding to the number types of models.

/// The number type to which a library rounds the values that it decodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// f32: nothing is rounded.
    F32,
    /// Half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl ValueType {
    /// The type with a name of torch: `float32`, `float16`, `bfloat16`.
    pub fn from_torch(name: &str) -> Option<ValueType> {
        match name {
            "float32" => Some(ValueType::F32),
            "float16" => Some(ValueType::F16),
            "bfloat16" => Some(ValueType::BF16),
            _ => None,
        }
    }

    /// Rounds to nearest even.
    #[inline(always)]
    pub fn round(self, x: f32) -> f32 {
        match self {
            ValueType::F32 => x,
            ValueType::F16 => {
                // without branches and calls: it stands in loops that are to be vectorised
                let (sign, rest) = (x.to_bits() & 0x8000_0000, x.to_bits() & 0x7fff_ffff);
                const SMALLEST: u32 = 113 << 23;
                // neighbours of numbers from 0.5 on are as far apart as denormal numbers in half precision
                let denormal = (f32::from_bits(rest) + 0.5) - 0.5;
                let normal = rest.wrapping_add(0xfff + (rest >> 13 & 1)) & !0x1fff;
                let normal = if normal >= 143 << 23 { f32::INFINITY.to_bits() } else { normal };
                let magnitude = if rest < SMALLEST { denormal.to_bits() } else { normal };
                f32::from_bits(sign | if rest > f32::INFINITY.to_bits() { rest } else { magnitude })
            }
            ValueType::BF16 => {
                let bits = x.to_bits();
                let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
                f32::from_bits(if x.is_nan() { bits } else { rounded })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_rounded_to_nearest_even() {
        for bits in (0..=u32::MAX).step_by(9973) {
            let x = f32::from_bits(bits);
            for (found, want) in [
                (ValueType::BF16.round(x), half::bf16::from_f32(x).to_f32()),
                (ValueType::F16.round(x), half::f16::from_f32(x).to_f32()),
            ] {
                assert!(found.to_bits() == want.to_bits() || x.is_nan() && found.is_nan(), "{x} {found} {want}");
            }
        }
        assert_eq!(ValueType::from_torch("bfloat16"), Some(ValueType::BF16));
        assert_eq!(ValueType::from_torch("int8"), None);
    }
}
