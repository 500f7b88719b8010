//! Sums, biases, dropout and rows of tables.

use super::common::{any_threads, cases, close, data, dot, is_gradient, to_f64, tolerance};
use half::{bf16, f16};
use loram_core::StoredWeight;
use loram_nn::kernels::Real;
use loram_nn::kernels::elementwise::*;
use loram_nn::kernels::embedding::{gather, gather_stored, scatter_add};
use proptest::prelude::*;

/// Applies `f` to a copy of `y`.
fn changed<T: Real>(y: &[T], f: impl Fn(&mut [T]) + Sync) -> Vec<T> {
    any_threads(|| {
        let mut y = y.to_vec();
        f(&mut y);
        y
    })
}

fn check_sums<T: Real>(n: usize) {
    let (x, y, a) = (data::<T>(n, 1), data::<T>(n, 2), T::from_f64(-0.75));
    let pairs = || x.iter().zip(&y).map(|(x, y)| (x.to_f64(), y.to_f64()));
    let tol = tolerance::<T>();
    close(&changed(&y, |y| add_assign(y, &x)), &pairs().map(|(x, y)| x + y).collect::<Vec<_>>(), tol);
    close(&changed(&y, |y| axpy(y, a, &x)), &pairs().map(|(x, y)| y - 0.75 * x).collect::<Vec<_>>(), tol);
    close(&changed(&y, |y| scale(y, a)), &pairs().map(|(_, y)| -0.75 * y).collect::<Vec<_>>(), tol);
    let squares = any_threads(|| vec![sum_squares(&x)]);
    // the data are whole multiples of 2⁻¹⁹; adding their squares one by one in f64 would round in one direction
    let exact: i64 = x.iter().map(|x| (x.to_f64() * f64::from(1 << 19)) as i64).map(|k| k * k).sum();
    close(&squares, &[exact as f64 / (1u64 << 38) as f64], 1e-13);
}

fn check_biases<T: Real>(rows: usize, cols: usize) {
    let (y, bias) = (data::<T>(rows * cols, 1), data::<T>(cols, 2));
    let repeated: Vec<f64> = (0..rows).flat_map(|_| to_f64(&bias)).collect();
    let sum: Vec<f64> = to_f64(&y).iter().zip(&repeated).map(|(y, b)| y + b).collect();
    close(&changed(&y, |y| add_bias(y, &bias, rows, cols)), &sum, tolerance::<T>());
    close(&changed(&y, |y| fill_bias(y, &bias, rows, cols)), &repeated, 0.0);
    // the gradient is added to what is there
    let columns = (0..cols).map(|j| bias[j].to_f64() + (0..rows).map(|i| y[i * cols + j].to_f64()).sum::<f64>());
    close(&changed(&bias, |db| bias_grad(&y, db, rows, cols)), &columns.collect::<Vec<_>>(), tolerance::<T>());
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn sums_of_odd_lengths(n in 0usize..200) {
        check_sums::<f32>(n);
        check_sums::<f64>(n);
    }

    #[test]
    fn biases_of_odd_shapes(rows in 0usize..9, cols in 0usize..140) {
        check_biases::<f32>(rows, cols);
        check_biases::<f64>(rows, cols);
    }

    #[test]
    fn tables_of_odd_shapes(rows in 1usize..9, cols in 1usize..140, ids in prop::collection::vec(0u32..1000, 0..9)) {
        let ids: Vec<u32> = ids.iter().map(|id| id % rows as u32).collect();
        check_tables::<f32>(rows, cols, &ids);
        check_tables::<f64>(rows, cols, &ids);
    }
}

#[test]
fn on_several_threads() {
    for n in [65_537, 200_003] {
        check_sums::<f32>(n);
        check_sums::<f64>(n);
    }
    let ids: Vec<u32> = (0..601).map(|i| i * i % 13).collect();
    for (rows, cols) in [(2, 40_009), (601, 257), (70_001, 1)] {
        check_biases::<f32>(rows, cols);
        check_biases::<f64>(rows, cols);
    }
    check_tables::<f32>(13, 641, &ids);
    check_tables::<f32>(13, 40_009, &[7, 7]);
}

/// The mask of a dropout, as 1 and 0.
fn mask(n: usize, p: f64, seed: u64, offset: u64) -> Vec<f64> {
    let keep = 1.0 - p;
    let y = changed(&vec![f64::NAN; n], |y| dropout_forward(&vec![1.0; n], y, p, seed, offset));
    y.iter().map(|y| y * keep).collect()
}

#[test]
fn dropout_keeps_its_share() {
    for p in [0.0, 0.1, 0.5, 0.9] {
        let m = mask(100_003, p, 1, 0);
        assert!(m.iter().all(|m| [0.0, 1.0].contains(m)), "scaled by 1 / (1 − p)");
        let share = m.iter().sum::<f64>() / m.len() as f64;
        // five standard deviations
        assert!((share - (1.0 - p)).abs() <= 5.0 * (p * (1.0 - p) / 1e5).sqrt(), "{share} of p = {p}");
    }
    let mut y = [f32::NAN; 70];
    dropout_forward(&data::<f32>(70, 1), &mut y, 1.0, 1, 0);
    assert_eq!(y, [0.0; 70]);
}

#[test]
fn masks_of_other_seeds_and_places_are_unrelated() {
    let base = mask(100_000, 0.5, 1, 0);
    for other in [mask(100_000, 0.5, 2, 0), mask(100_000, 0.5, 1, 1 << 40), mask(100_000, 0.5, 1, 100_000)] {
        let same = base.iter().zip(&other).filter(|(a, b)| a == b).count();
        assert!(same.abs_diff(50_000) < 800, "{same} of 100000 agree");
    }
    for lag in [1, 2, 64, 512] {
        let same = base.iter().zip(&base[lag..]).filter(|(a, b)| a == b).count();
        assert!(same.abs_diff((base.len() - lag) / 2) < 800, "{same} agree at distance {lag}");
    }
}

#[test]
fn a_mask_may_be_drawn_in_pieces() {
    // also across the border of the 32-bit counter
    for offset in [0, 12_345, (1 << 32) - 700, (5 << 32) - 1] {
        let whole = mask(1009, 0.3, 9, offset);
        let pieces = [mask(701, 0.3, 9, offset), mask(308, 0.3, 9, offset + 701)].concat();
        assert_eq!(whole, pieces);
    }
}

#[test]
fn the_backward_mask_is_the_forward_one() {
    let (n, p, seed, offset) = (73, 0.4, 5, 1000);
    let (x, dy, start) = (data::<f64>(n, 1), data::<f64>(n, 2), data::<f64>(n, 3));
    let dx = changed(&start, |dx| dropout_backward(&dy, dx, p, seed, offset, false));
    is_gradient(&dx, &x, &|x| {
        let mut y = vec![0.0; n];
        dropout_forward(x, &mut y, p, seed, offset);
        dot(&y, &dy)
    });
    let added = changed(&start, |dx| dropout_backward(&dy, dx, p, seed, offset, true));
    close(&added, &dx.iter().zip(&start).map(|(a, b)| a + b).collect::<Vec<_>>(), 1e-12);
    // both types draw the same
    let mut narrow = vec![0f32; n];
    dropout_backward(&dy.iter().map(|&g| g as f32).collect::<Vec<_>>(), &mut narrow, p, seed, offset, false);
    close(&narrow, &dx, 1e-6);
}

fn check_tables<T: Real>(rows: usize, cols: usize, ids: &[u32]) {
    // eight bits: every format of a table holds them
    let exact: Vec<f64> = data::<f64>(rows * cols, 1).iter().map(|x| (x * 128.0).round() / 128.0).collect();
    let singles: Vec<f32> = exact.iter().map(|&x| x as f32).collect();
    let halves: Vec<f16> = exact.iter().map(|&x| f16::from_f64(x)).collect();
    let brains: Vec<bf16> = exact.iter().map(|&x| bf16::from_f64(x)).collect();
    let want: Vec<f64> =
        ids.iter().flat_map(|&id| exact[id as usize * cols..(id as usize + 1) * cols].to_vec()).collect();
    let start = data::<T>(ids.len() * cols, 2);
    let sum: Vec<f64> = to_f64(&start).iter().zip(&want).map(|(a, b)| a + b).collect();
    for table in [
        StoredWeight::of(&singles, rows, cols),
        StoredWeight::of(&exact, rows, cols),
        StoredWeight::of(&halves, rows, cols),
        StoredWeight::of(&brains, rows, cols),
    ] {
        close(&changed(&start, |y| gather_stored(table, ids, y, false).unwrap()), &want, 0.0);
        close(&changed(&start, |y| gather_stored(table, ids, y, true).unwrap()), &sum, tolerance::<T>());
    }
    let own: Vec<T> = exact.iter().map(|&x| T::from_f64(x)).collect();
    close(&changed(&start, |y| gather(&own, cols, ids, y, false).unwrap()), &want, 0.0);
    close(&changed(&start, |y| gather(&own, cols, ids, y, true).unwrap()), &sum, tolerance::<T>());

    let before = data::<T>(rows * cols, 3);
    let got = changed(&before, |d| scatter_add(&start, ids, d, cols).unwrap());
    let mut grad = to_f64(&before);
    for (row, &id) in to_f64(&start).chunks_exact(cols).zip(ids) {
        for (g, x) in grad[id as usize * cols..].iter_mut().zip(row) {
            *g += x;
        }
    }
    close(&got, &grad, tolerance::<T>());
}

#[test]
fn the_gradient_of_gathering_is_scattering() {
    let (cols, ids) = (3, [4, 0, 4, 2]);
    let (table, dy) = (data::<f64>(15, 1), data::<f64>(12, 2));
    let mut grad = vec![0.0; 15];
    scatter_add(&dy, &ids, &mut grad, cols).unwrap();
    is_gradient(&grad, &table, &|t| {
        let mut y = vec![0.0; 12];
        gather(t, cols, &ids, &mut y, false).unwrap();
        dot(&y, &dy)
    });
}

#[test]
fn tokens_without_a_row_are_errors() {
    let table = data::<f32>(12, 1);
    let mut y = [7f32; 8];
    let of_stored = gather_stored(StoredWeight::of(&table, 3, 4), &[2, 3], &mut y, false).unwrap_err();
    let of_own = gather(&table, 4, &[2, 3], &mut y, false).unwrap_err();
    for e in [of_stored, of_own] {
        assert_eq!(e.to_string(), "token id 3 at index 1 is out of range: expected 0..3");
    }
    assert_eq!(scatter_add(&y, &[u32::MAX, 0], &mut table.clone(), 4).unwrap_err().index, 0);
    assert_eq!(y, [7.0; 8]);
}
