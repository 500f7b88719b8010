//! Packing of operands into panels, with rounding to bf16 on the way.

use super::matrix::{Matrix, Number};
use super::{BLOCK, SIDE};
use std::arch::x86_64::*;
use std::ops::Range;

/// Loads `n` ≤ 32 numbers of a row from column `col` on as bf16, the others 0.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn load(m: &Matrix<'_>, row: usize, col: usize, n: usize) -> __m512i {
    let mask = if n >= SIDE { u32::MAX } else { (1 << n) - 1 };
    let at = (row * m.stride + col) * m.number.size();
    let from = m.bytes.as_ptr().wrapping_add(at);
    // SAFETY: the matrix has the numbers that the mask names
    unsafe {
        let (low, high) = match m.number {
            Number::Bf16 => return _mm512_maskz_loadu_epi16(mask, from.cast()),
            Number::F32(factor) => {
                let factor = _mm512_set1_ps(factor);
                let times = |x| _mm512_mul_ps(x, factor);
                (
                    times(_mm512_maskz_loadu_ps(mask as u16, from.cast())),
                    times(_mm512_maskz_loadu_ps((mask >> 16) as u16, from.wrapping_add(64).cast())),
                )
            }
            Number::F16 => {
                let halves = _mm512_maskz_loadu_epi16(mask, from.cast());
                (
                    _mm512_cvtph_ps(_mm512_castsi512_si256(halves)),
                    _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(halves)),
                )
            }
        };
        std::mem::transmute(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Packs up to 32 rows as a panel of a left operand: in a block, row after row.
///
/// # Safety
/// The processor has the instructions, the rows exist, and `out` has room for a panel.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::kernels) unsafe fn rows(m: &Matrix<'_>, rows: Range<usize>, out: *mut u8) {
    for (block, col) in (0..m.cols).step_by(SIDE).enumerate() {
        let n = (m.cols - col).min(SIDE);
        for r in 0..SIDE {
            // SAFETY: the caller's promise
            unsafe {
                let numbers = match r < rows.len() {
                    true => load(m, rows.start + r, col, n),
                    false => _mm512_setzero_si512(),
                };
                _mm512_store_si512(out.add(block * BLOCK + r * 64).cast(), numbers);
            }
        }
    }
}

/// Packs up to 32 rows of W as a panel of the right operand Wᵀ, for the inner indices `inner`. A block has two tiles of 16
/// columns; a row of a tile has a pair of inner indices for each of them.
///
/// # Safety
/// As for [`rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::kernels) unsafe fn transposed(w: &Matrix<'_>, rows: Range<usize>, inner: Range<usize>, out: *mut u8) {
    for (block, col) in inner.clone().step_by(SIDE).enumerate() {
        let n = (inner.end - col).min(SIDE);
        for tile in 0..2 {
            let mut pairs = [_mm512_setzero_si512(); 16];
            for (row, pairs) in (rows.start + 16 * tile..rows.end).zip(&mut pairs) {
                // SAFETY: the caller's promise
                *pairs = unsafe { load(w, row, col, n) };
            }
            for (p, pairs) in transpose(pairs).into_iter().enumerate() {
                // SAFETY: the caller's promise
                unsafe { _mm512_store_si512(out.add(block * BLOCK + tile * BLOCK / 2 + p * 64).cast(), pairs) };
            }
        }
    }
}

/// Pairs of two rows of 32 numbers: those of columns 0..16, and those of 16..32.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn pairs(even: __m512i, odd: __m512i) -> [__m512i; 2] {
    let of = |even: __m256i, odd: __m256i| {
        _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd)))
    };
    let high = |x| _mm512_extracti64x4_epi64::<1>(x);
    [of(_mm512_castsi512_si256(even), _mm512_castsi512_si256(odd)), of(high(even), high(odd))]
}

/// Pairs of rows `row` and the next, of which those from `end` on are 0.
///
/// # Safety
/// As for [`load`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn load_pairs(m: &Matrix<'_>, row: usize, end: usize, cols: &Range<usize>) -> [__m512i; 2] {
    let at = |row: usize| match row < end {
        // SAFETY: the caller's promise
        true => unsafe { load(m, row, cols.start, cols.len()) },
        false => _mm512_setzero_si512(),
    };
    pairs(at(row), at(row + 1))
}

/// Packs up to 32 columns of W as a panel of the right operand W, for the inner indices (rows of W) `inner`.
///
/// # Safety
/// As for [`rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::kernels) unsafe fn columns(w: &Matrix<'_>, cols: Range<usize>, inner: Range<usize>, out: *mut u8) {
    for p in 0..inner.len().div_ceil(SIDE) * SIDE / 2 {
        // SAFETY: the caller's promise
        unsafe {
            let [low, high] = load_pairs(w, inner.start + 2 * p, inner.end, &cols);
            let at = out.add(p / 16 * BLOCK + p % 16 * 64);
            _mm512_store_si512(at.cast(), low);
            _mm512_store_si512(at.add(BLOCK / 2).cast(), high);
        }
    }
}

/// Packs a block of a left operand as one of a right operand: its rows become inner indices.
///
/// # Safety
/// The processor has the instructions, and both blocks are valid.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::kernels) unsafe fn columns_of_block(block: *const u8, out: *mut u8) {
    for p in 0..SIDE / 2 {
        // SAFETY: the caller's promise
        unsafe {
            let row = |r: usize| _mm512_load_si512(block.add(r * 64).cast());
            let [low, high] = pairs(row(2 * p), row(2 * p + 1));
            _mm512_store_si512(out.add(p * 64).cast(), low);
            _mm512_store_si512(out.add(BLOCK / 2 + p * 64).cast(), high);
        }
    }
}

/// Packs up to 32 columns of a matrix as a panel of the left operand that is its transpose.
///
/// # Safety
/// As for [`rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(in crate::kernels) unsafe fn rows_of_transpose(m: &Matrix<'_>, cols: Range<usize>, out: *mut u8) {
    for (block, row) in (0..m.rows).step_by(SIDE).enumerate() {
        let mut halves = [[_mm512_setzero_si512(); 16]; 2];
        let [low, high] = &mut halves;
        for (p, (low, high)) in low.iter_mut().zip(high).enumerate() {
            // SAFETY: the caller's promise
            [*low, *high] = unsafe { load_pairs(m, row + 2 * p, m.rows, &cols) };
        }
        for (r, row) in halves.map(|half| transpose(half)).as_flattened().iter().enumerate() {
            // SAFETY: the caller's promise
            unsafe { _mm512_store_si512(out.add(block * BLOCK + r * 64).cast(), *row) };
        }
    }
}

/// Transposes 16 × 16 numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(r: [__m512i; 16]) -> [__m512i; 16] {
    let zero = _mm512_setzero_si512();
    let (mut two, mut four, mut out) = ([zero; 16], [zero; 16], [zero; 16]);
    for i in 0..8 {
        two[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
        two[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for i in 0..4 {
        for j in 0..2 {
            four[4 * i + 2 * j] = _mm512_unpacklo_epi64(two[4 * i + j], two[4 * i + j + 2]);
            four[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(two[4 * i + j], two[4 * i + j + 2]);
        }
    }
    // lane l of four[4i + c] has rows 4i..4i + 4 of column 4l + c
    for c in 0..4 {
        let (a, b, d, e) = (four[c], four[4 + c], four[8 + c], four[12 + c]);
        let even = [_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0x88>(d, e)];
        let odd = [_mm512_shuffle_i32x4::<0xdd>(a, b), _mm512_shuffle_i32x4::<0xdd>(d, e)];
        out[c] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    out
}
