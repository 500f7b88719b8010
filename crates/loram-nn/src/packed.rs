//! Quantised weights that stay packed on a GPU.

use loram_core::StoredWeight;

/// Formats whose blocks hold all that a GPU needs to unpack them: ggml's.
pub(crate) const PACKED_BLOCKS: [&str; 10] =
    ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"];

/// Bytes that a stored weight takes on a GPU where it stays packed there, and is unpacked for each product; `None` for one that is
/// decoded once.
pub fn packed_bytes(stored: StoredWeight<'_>) -> Option<usize> {
    match stored.format().four_bit() {
        // 16 levels, and scales in f32
        Some(format) => Some(stored.bytes().len() + 4 * (16 + stored.len().div_ceil(format.block))),
        None => PACKED_BLOCKS.contains(&stored.format().name()).then(|| stored.bytes().len()),
    }
}
