//! How work is cut, and sums in lanes.

use super::common::{cases, close, data, dot, to_f64, tolerance, whole};
use loram_nn::kernels::Real;
use loram_nn::kernels::par::*;
use loram_nn::kernels::simd;
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn on<R: Send>(threads: usize, f: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn every_row_once_and_with_its_parts(
        rows in 0usize..300,
        (a, b) in (0usize..5, 1usize..5),
        work in prop::sample::select(vec![0, 1, 500, 40_000, usize::MAX]),
        threads in 1usize..6,
    ) {
        let left: Vec<usize> = (0..rows * a).collect();
        let mut right = vec![0; rows * b];
        let calls = AtomicUsize::new(0);
        on(threads, || {
            let parts = (Rows(&left, a), RowsMut(&mut right, b), None::<Rows<'_, u8>>);
            for_rows(parts, rows, work, |(left, right, _), range| {
                assert_eq!((left.0.len(), right.0.len()), (range.len() * a, range.len() * b));
                assert!(!range.is_empty());
                assert_eq!(left.0, (range.start * a..range.end * a).collect::<Vec<_>>());
                for (row, i) in right.0.chunks_exact_mut(b).zip(range) {
                    row.iter_mut().for_each(|x| *x += i + 1);
                }
                calls.fetch_add(1, Ordering::Relaxed);
            });
        });
        prop_assert_eq!(right, (0..rows).flat_map(|i| vec![i + 1; b]).collect::<Vec<_>>());
        let calls = calls.into_inner();
        if threads == 1 || work <= 1 {
            prop_assert_eq!(calls, rows.min(1), "little work stays on one thread");
        } else if work > GRAIN && rows > 1 {
            prop_assert!(calls > 1, "much work is shared");
        }
    }

    #[test]
    fn every_unit_once(n in 0usize..300, grain in 0usize..40, threads in 1usize..6) {
        let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        on(threads, || for_units(n, grain, |i| { seen[i].fetch_add(1, Ordering::Relaxed); }));
        prop_assert!(seen.into_iter().all(|x| x.into_inner() == 1));
    }

    #[test]
    fn sums_of_odd_lengths(n in 0usize..150) {
        check_sums::<f32>(n);
        check_sums::<f64>(n);
    }
}

fn check_sums<T: Real>(n: usize) {
    let [a, b, c] = [1, 2, 3].map(|seed| data::<T>(n, seed));
    let [x, y, z] = [&a, &b, &c].map(|x| to_f64(x));
    let tol = tolerance::<T>();
    close(&[simd::sum(&a)], &[x.iter().sum()], tol * 10.0);
    close(&[simd::dot(&a, &b)], &[dot(&x, &y)], tol * 10.0);
    let xy: Vec<f64> = x.iter().zip(&y).map(|(x, y)| x * y).collect();
    close(&[simd::dot3(&a, &b, &c)], &[dot(&xy, &z)], tol * 10.0);
    let squares = x.iter().map(|x| (x - 0.25).powi(2)).sum();
    close(&[simd::centred_square_sum(&a, T::from_f64(0.25))], &[squares], tol);
    let top = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(x));
    assert_eq!(simd::max(&a).to_f64(), top);
    let mut e = a.clone();
    let total = simd::exp_sum(&mut e, T::from_f64(0.5));
    let exact: Vec<f64> = x.iter().map(|x| (x - 0.5).exp()).collect();
    close(&e, &exact, tol);
    close(&[total], &[exact.iter().sum()], tol);
}

#[test]
fn the_largest_passes_over_nan() {
    for n in [1, 33, 70] {
        for at in [0, n / 2, n - 1] {
            let mut x = whole::<f32>(n, 1);
            x[at] = f32::NAN;
            let want = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(simd::max(&x), want);
        }
    }
}

#[test]
fn a_shared_slice_hands_out_its_parts() {
    let mut x = [1, 2, 3, 4];
    let shared = Shared::new(&mut x);
    assert_eq!((shared.len(), shared.is_empty()), (4, false));
    // SAFETY: the ranges do not overlap
    let (a, b) = unsafe { (shared.slice(0..2), shared.slice(2..4)) };
    a.swap_with_slice(b);
    assert_eq!(x, [3, 4, 1, 2]);
    assert!(Shared::<u8>::new(&mut []).is_empty());
}

#[test]
#[should_panic(expected = "range 3..5 of 4 elements")]
fn a_shared_slice_has_borders() {
    let mut x = [0; 4];
    let shared = Shared::new(&mut x);
    // SAFETY: nothing else refers to it
    unsafe { shared.slice(3..5) };
}

#[test]
#[should_panic(expected = "element 5 of 4")]
fn addresses_have_borders() {
    Shared::new(&mut [0; 4]).ptr(5);
}

#[test]
fn scratch_is_aligned_and_as_long_as_asked() {
    for n in [0, 1, 1000, 3] {
        let (len, place) = with_scratch(n, |x: &mut [f32]| {
            x.fill(1.0);
            (x.len(), x.as_ptr().addr())
        });
        assert_eq!(len, n);
        assert!(n == 0 || place % 64 == 0);
        assert_eq!(with_scratch(n, |x: &mut [f64]| x.len()), n);
    }
}
