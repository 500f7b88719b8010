//! The map of bitsandbytes' 8-bit type, which holds the scales of a weight that is quantised twice.

use std::sync::LazyLock;

/// The values of the codes of bitsandbytes' `create_dynamic_map()`, bit for bit: in each decade from 1e-6 to 1 twice as many steps as in the
/// one before, with both signs, and 0 and 1.
pub fn dynamic_map() -> &'static [f32; 256] {
    static MAP: LazyLock<[f32; 256]> = LazyLock::new(|| {
        let mut values = vec![0.0f32, 1.0];
        for decade in 0..7 {
            let steps: usize = 1 << decade;
            // torch.linspace(0.1, 1, steps + 1): from either end, with fused multiplications
            let step = (1.0 - 0.1f32) / steps as f32;
            let bound = |k: usize| match k < steps.div_ceil(2) {
                true => step.mul_add(k as f32, 0.1),
                false => (-step).mul_add((steps - k) as f32, 1.0),
            };
            let scale = [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0f32][decade];
            for k in 0..steps {
                let mean = scale * ((bound(k) + bound(k + 1)) / 2.0);
                values.extend([mean, -mean]);
            }
        }
        values.sort_by(f32::total_cmp);
        values.try_into().expect("256 values")
    });
    &MAP
}
