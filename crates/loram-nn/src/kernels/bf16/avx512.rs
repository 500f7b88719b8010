//! Dot products of AVX512-BF16: 12 rows × 32 columns of outputs at a time.

use super::{BLOCK, SIDE, Tile};
use std::arch::x86_64::*;

/// Computes a tile.
///
/// # Safety
/// The processor has the instructions, the panels and outputs are valid, and no other thread uses these outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn tile(t: Tile) {
    // SAFETY: the caller's promise
    unsafe {
        rows::<12>(t, 0);
        rows::<12>(t, 12);
        rows::<8>(t, 24);
    }
}

/// `H` rows of a tile from row `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rows<const H: usize>(t: Tile, first: usize) {
    // a pair of numbers is 4 bytes, a row of a block 64
    const PAIRS: usize = SIDE / 2;
    // SAFETY: rows `first..first + H` of the tile, and whole blocks
    unsafe {
        let output = |r: usize, v: usize| t.c.add((first + r) * t.ldc + 16 * v);
        let mut acc = [[_mm512_setzero_ps(); 2]; H];
        if t.accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                *acc = [0, 1].map(|v| _mm512_loadu_ps(output(r, v)));
            }
        }
        // plain loops: an iterator over both panels is a call for each block, around which all sums go through memory
        for panels in [t.main, t.extra] {
            for i in 0..panels.blocks {
                let (a, b) = (panels.a.add(i * BLOCK + first * 64), panels.b.add(i * BLOCK));
                for p in 0..PAIRS {
                    let column = |v: usize| -> __m512bh {
                        std::mem::transmute(_mm512_load_si512(b.add(v * BLOCK / 2 + p * 64).cast()))
                    };
                    let b = [column(0), column(1)];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let pair = _mm512_set1_epi32(a.add(r * 64 + p * 4).cast::<i32>().read());
                        let pair: __m512bh = std::mem::transmute(pair);
                        *acc = [_mm512_dpbf16_ps(acc[0], pair, b[0]), _mm512_dpbf16_ps(acc[1], pair, b[1])];
                    }
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (v, acc) in acc.iter().enumerate() {
                _mm512_storeu_ps(output(r, v), *acc);
            }
        }
    }
}
