//! Dot products of AVX512-BF16: 12 rows × 32 columns of outputs at a time.

use super::{BLOCK, SIDE, Tile};
use std::arch::x86_64::*;

/// Pairs of numbers in a row of a block: a pair is 4 bytes, a row 64.
const PAIRS: usize = SIDE / 2;

/// Computes `high` rows and `wide` columns of a tile, and perhaps others.
///
/// # Safety
/// The processor has the instructions, the panels and outputs are valid, and no other thread uses these outputs.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn tile(t: Tile, high: usize, wide: usize) {
    // SAFETY: the caller's promise
    unsafe {
        // factors of low rank have few rows or columns
        if wide <= SIDE / 2 {
            rows::<16, 1>(t, 0);
            if high > 16 {
                rows::<16, 1>(t, 16);
            }
            return;
        }
        rows::<12, 2>(t, 0);
        match high {
            ..=12 => {}
            13..=16 => rows::<4, 2>(t, 12),
            17..=24 => rows::<12, 2>(t, 12),
            _ => {
                rows::<12, 2>(t, 12);
                rows::<8, 2>(t, 24);
            }
        }
    }
}

/// `H` rows of `V` · 16 columns of a tile from row `first` on.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn rows<const H: usize, const V: usize>(t: Tile, first: usize) {
    // SAFETY: rows `first..first + H` of the tile, and blocks of its panels
    unsafe {
        let output = |r: usize, v: usize| t.c.add((first + r) * t.ldc + 16 * v);
        let mut acc = [[_mm512_setzero_ps(); V]; H];
        if t.accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (v, acc) in acc.iter_mut().enumerate() {
                    *acc = _mm512_loadu_ps(output(r, v));
                }
            }
        }
        // plain loops: an iterator over both panels is a call for each block, around which all sums go through memory
        for panels in [t.main, t.extra] {
            let whole = if panels.tail < SIDE { panels.blocks.saturating_sub(1) } else { panels.blocks };
            for i in 0..whole {
                let (a, b) = (panels.a.add(i * BLOCK + first * 64), panels.b.add(i * BLOCK));
                for p in 0..PAIRS {
                    add(&mut acc, a, b, p);
                }
            }
            if whole < panels.blocks {
                let (a, b) = (panels.a.add(whole * BLOCK + first * 64), panels.b.add(whole * BLOCK));
                for p in 0..panels.tail.div_ceil(2) {
                    add(&mut acc, a, b, p);
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

/// Adds the products of pair `p` of a block to the sums.
#[inline(always)]
unsafe fn add<const H: usize, const V: usize>(acc: &mut [[__m512; V]; H], a: *const u8, b: *const u8, p: usize) {
    // SAFETY: the promise of `rows`
    unsafe {
        let mut columns: [__m512bh; V] = [std::mem::transmute::<__m512i, __m512bh>(_mm512_setzero_si512()); V];
        for (v, column) in columns.iter_mut().enumerate() {
            *column = std::mem::transmute::<__m512i, __m512bh>(_mm512_load_si512(b.add(v * BLOCK / 2 + p * 64).cast()));
        }
        for (r, acc) in acc.iter_mut().enumerate() {
            let pair = _mm512_set1_epi32(a.add(r * 64 + p * 4).cast::<i32>().read());
            let pair = std::mem::transmute::<__m512i, __m512bh>(pair);
            for (acc, column) in acc.iter_mut().zip(columns) {
                *acc = _mm512_dpbf16_ps(*acc, pair, column);
            }
        }
    }
}
