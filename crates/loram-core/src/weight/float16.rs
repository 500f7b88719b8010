//! IEEE half precision.

use super::format::{WeightElement, WeightFormat};
use half::f16;
use half::slice::HalfFloatSliceExt;

/// IEEE half precision, `F16`.
#[derive(Debug, Clone, Copy)]
pub struct Float16;

impl WeightElement for f16 {
    const FORMAT: &'static dyn WeightFormat = &Float16;
}

impl WeightFormat for Float16 {
    fn name(&self) -> &'static str {
        "F16"
    }

    #[inline(always)]
    fn block_bytes(&self) -> usize {
        size_of::<f16>()
    }

    #[inline(always)]
    fn decode(&self, _: usize, bytes: &[u8], out: &mut [f32]) {
        match bytemuck::try_cast_slice::<u8, f16>(bytes) {
            Ok(x) => x.convert_to_f32_slice(out),
            // an odd address, which safetensors' own writer never produces
            Err(_) => out.iter_mut().zip(bytes.as_chunks().0).for_each(|(o, x)| *o = f16::from_le_bytes(*x).to_f32()),
        }
    }
}
