//! Scales of 6 bits, packed into 12 bytes: for groups of 32 in `Q4_K` and `Q5_K`.

/// The integer scales and minima of the eight groups of a block.
#[inline(always)]
pub(super) fn scales_and_minima(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut minima) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (scale, minimum, both) = (packed[i], packed[4 + i], packed[8 + i]);
        scales[i] = scale & 63;
        minima[i] = minimum & 63;
        scales[4 + i] = both & 15 | scale >> 6 << 4;
        minima[4 + i] = both >> 4 | minimum >> 6 << 4;
    }
    (scales, minima)
}
