use crate::compute::Compute;
use crate::cuda::packed::Packed;
use crate::packed::{PACKED_BLOCKS, packed_bytes};
use half::{bf16, f16};
use loram_core::{
    BlockScales, FourBit, FourBitType, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, RowOrder, StoredWeight,
    ValueType, WeightFormat,
};
use std::sync::Arc;

fn bytes(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect()
}

/// Unpacked on the GPU, a weight has the bits of what the CPU decodes, rounded.
#[track_caller]
fn check(w: StoredWeight<'_>) {
    assert!(packed_bytes(w).is_some(), "{}", w.format().name());
    let found = Packed::upload(w).unpack();
    assert_eq!((found.rows(), found.cols(), found.compute()), (w.rows(), w.cols(), Compute::CudaBf16));
    for (i, (found, want)) in found.to_f32_vec().iter().zip(w.to_vec()).enumerate() {
        let want = bf16::from_f32(want).to_f32();
        let same = found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan();
        assert!(same, "{} {:?}, value {i}: {found} instead of {want}", w.format().name(), w.order());
    }
}

#[test]
fn blocks_of_ggml() {
    let formats: [(&dyn WeightFormat, &[usize]); 10] = [
        (&Q4_0, &[0]),
        (&Q4_1, &[0, 2]),
        (&Q5_0, &[0]),
        (&Q5_1, &[0, 2]),
        (&Q8_0, &[0]),
        (&Q2K, &[80, 82]),
        (&Q3K, &[108]),
        (&Q4K, &[0, 2]),
        (&Q5K, &[0, 2]),
        (&Q6K, &[208]),
    ];
    assert_eq!(formats.map(|f| f.0.name()), PACKED_BLOCKS);
    for (format, halves) in formats {
        let (rows, cols) = (12, 3 * format.block_values());
        let mut data = bytes(format.bytes_of(rows * cols));
        for (i, block) in data.chunks_exact_mut(format.block_bytes()).enumerate() {
            for (k, &at) in halves.iter().enumerate() {
                // both signs, and denormal numbers of half precision
                let x = (1.0 - 2.0 * (i % 2) as f32) * (0.011 + k as f32 * 0.3) * 0.1f32.powi(i as i32 % 8);
                block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
            }
        }
        let w = StoredWeight::new(format, &data[..], rows, cols);
        check(w);
        check(w.with_order(RowOrder::Interleaved { head_dim: 6 }));
    }
}

#[test]
fn four_bits_with_scales() {
    for kind in [FourBitType::Nf4, FourBitType::Fp4] {
        for values in [ValueType::F32, ValueType::F16, ValueType::BF16] {
            for (rows, cols, block) in [(7usize, 10usize, 64), (5, 64, 32), (1, 2, 64), (33, 96, 64)] {
                let scales = (0..(rows * cols).div_ceil(block)).map(|i| 0.013 * 0.1f32.powi(i as i32 % 9));
                let scales: Vec<u8> = scales.flat_map(f32::to_le_bytes).collect();
                let format = FourBit::new(kind, block, values, BlockScales::F32(Arc::new(scales)));
                let data = bytes(rows * cols / 2);
                check(StoredWeight::new(&format, &data[..], rows, cols));
            }
        }
    }
}
