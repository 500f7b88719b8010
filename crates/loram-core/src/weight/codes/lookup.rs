//! Codes of 4 bits, two in a byte, looked up in tables of 16 values.

/// The tables of runs of values.
pub(super) trait Tables {
    /// The upper half of a byte is the first of its two codes.
    const UPPER_FIRST: bool = true;

    /// The end of the run that holds value `at`, and its table. Both ends of a run are even.
    fn run(&self, at: usize) -> (usize, [f32; 16]);
}

/// Decodes the values from `first` on, two to a byte.
#[inline(always)]
pub(super) fn decode<T: Tables>(tables: &T, first: usize, codes: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            // SAFETY: the processor has the instructions
            return unsafe { x86::decode_512(tables, first, codes, out) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above
            return unsafe { x86::decode_256(tables, first, codes, out) };
        }
    }
    runs(tables, first, codes, out, plain::<T>);
}

/// Calls `look_up` for every run.
#[inline(always)]
fn runs(
    tables: &impl Tables,
    first: usize,
    codes: &[u8],
    out: &mut [f32],
    look_up: impl Fn(&[f32; 16], &[u8], &mut [f32]),
) {
    let (len, mut at) = (out.len(), 0);
    while at < len {
        let (end, table) = tables.run(first + at);
        let end = (end - first).min(len);
        look_up(&table, &codes[at / 2..end / 2], &mut out[at..end]);
        at = end;
    }
}

#[inline(always)]
fn plain<T: Tables>(table: &[f32; 16], codes: &[u8], out: &mut [f32]) {
    for (out, code) in out.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        let (upper, lower) = (table[usize::from(code >> 4)], table[usize::from(code & 15)]);
        *out = if T::UPPER_FIRST { [upper, lower] } else { [lower, upper] };
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Tables, plain, runs};
    use std::arch::x86_64::*;

    /// As [`decode`](super::decode), 16 values at a time.
    ///
    /// # Safety
    /// The processor has the instructions.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub(super) unsafe fn decode_512<T: Tables>(tables: &T, first: usize, codes: &[u8], out: &mut [f32]) {
        runs(
            tables,
            first,
            codes,
            out,
            #[inline(always)]
            |table, codes, out| {
                // SAFETY: this function has the instructions; 16 values of the table, 8 codes and 16 places are there
                unsafe {
                    let table16 = _mm512_loadu_ps(table.as_ptr());
                    let (codes8, rest) = codes.as_chunks::<8>();
                    let (out16, last) = out.as_chunks_mut::<16>();
                    for (codes, out) in codes8.iter().zip(out16) {
                        let numbers = _mm512_cvtepu8_epi32(interleaved::<T>(codes));
                        _mm512_storeu_ps(out.as_mut_ptr(), _mm512_permutexvar_ps(numbers, table16));
                    }
                    plain::<T>(table, rest, last);
                }
            },
        );
    }

    /// The same, 8 values at a time in two halves of the table.
    ///
    /// # Safety
    /// As for [`decode_512`].
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn decode_256<T: Tables>(tables: &T, first: usize, codes: &[u8], out: &mut [f32]) {
        runs(
            tables,
            first,
            codes,
            out,
            #[inline(always)]
            |table, codes, out| {
                // SAFETY: as in `decode_512`
                unsafe {
                    let (low, high) = (_mm256_loadu_ps(table.as_ptr()), _mm256_loadu_ps(table[8..].as_ptr()));
                    let look_up = |numbers: __m256i| {
                        // the highest bit of each number says which half it is in
                        let upper = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(numbers));
                        let of = |half| _mm256_permutevar8x32_ps(half, numbers);
                        _mm256_blendv_ps(of(low), of(high), upper)
                    };
                    let (codes8, rest) = codes.as_chunks::<8>();
                    let (out16, last) = out.as_chunks_mut::<16>();
                    for (codes, out) in codes8.iter().zip(out16) {
                        let numbers = interleaved::<T>(codes);
                        _mm256_storeu_ps(out.as_mut_ptr(), look_up(_mm256_cvtepu8_epi32(numbers)));
                        let second = look_up(_mm256_cvtepu8_epi32(_mm_srli_si128::<8>(numbers)));
                        _mm256_storeu_ps(out[8..].as_mut_ptr(), second);
                    }
                    plain::<T>(table, rest, last);
                }
            },
        );
    }

    /// The 16 codes of 8 bytes, a byte each, in order.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn interleaved<T: Tables>(codes: &[u8; 8]) -> __m128i {
        let (raw, mask) = (_mm_cvtsi64_si128(i64::from_le_bytes(*codes)), _mm_set1_epi8(15));
        let (upper, lower) = (_mm_and_si128(_mm_srli_epi16::<4>(raw), mask), _mm_and_si128(raw, mask));
        if T::UPPER_FIRST { _mm_unpacklo_epi8(upper, lower) } else { _mm_unpacklo_epi8(lower, upper) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Steps(usize);

    impl Tables for Steps {
        fn run(&self, at: usize) -> (usize, [f32; 16]) {
            let run = at / self.0;
            ((run + 1) * self.0, std::array::from_fn(|i| i as f32 - 100.0 * run as f32))
        }
    }

    struct LowerFirst(Steps);

    impl Tables for LowerFirst {
        const UPPER_FIRST: bool = false;

        fn run(&self, at: usize) -> (usize, [f32; 16]) {
            self.0.run(at)
        }
    }

    #[test]
    fn every_vector_unit_finds_the_same_values() {
        let codes: Vec<u8> = (0..300u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 21) as u8).collect();
        for (run, first, len) in [(64, 0, 600), (64, 34, 500), (10, 4, 90), (32, 62, 2), (256, 0, 0), (2, 2, 64)] {
            let codes = &codes[..len / 2];
            let want: Vec<f32> = (0..len)
                .map(|i| f32::from(codes[i / 2] >> (4 * (1 - i % 2)) & 15) - 100.0 * ((first + i) / run) as f32)
                .collect();
            let mut found = vec![f32::NAN; len];
            decode(&Steps(run), first, codes, &mut found);
            assert_eq!(found, want, "{run} {first} {len}");
            runs(&Steps(run), first, codes, &mut found, plain::<Steps>);
            assert_eq!(found, want, "{run} {first} {len}, plainly");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the instructions
                unsafe { x86::decode_256(&Steps(run), first, codes, &mut found) };
                assert_eq!(found, want, "{run} {first} {len}, 256 bits");
            }
            // the halves of each byte the other way round
            let turned: Vec<u8> = codes.iter().map(|code| code.rotate_left(4)).collect();
            let lower = LowerFirst(Steps(run));
            decode(&lower, first, &turned, &mut found);
            assert_eq!(found, want, "{run} {first} {len}, lower half first");
            runs(&lower, first, &turned, &mut found, plain::<LowerFirst>);
            assert_eq!(found, want, "{run} {first} {len}, lower half first, plainly");
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has the instructions
                unsafe { x86::decode_256(&lower, first, &turned, &mut found) };
                assert_eq!(found, want, "{run} {first} {len}, lower half first, 256 bits");
            }
        }
    }
}
