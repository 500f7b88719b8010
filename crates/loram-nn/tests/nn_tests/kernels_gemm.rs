//! Products of matrices against three loops.

use super::common::{any_threads, cases, close, data, dot, is_gradient, to_f64, tolerance, whole};
use loram_nn::kernels::Real;
use loram_nn::kernels::gemm::{Term, View, ViewMut, gemm, gemm_seq, gemm_sum};
use proptest::prelude::*;

/// How a matrix lies in memory: transposed or not, with so many elements unused after each row.
#[derive(Debug, Clone, Copy)]
struct Layout {
    transposed: bool,
    gap: usize,
}

const PLAIN: Layout = Layout { transposed: false, gap: 0 };

impl Layout {
    /// Rows, columns and row stride in memory.
    fn stored(self, rows: usize, cols: usize) -> (usize, usize, usize) {
        let (r, c) = if self.transposed { (cols, rows) } else { (rows, cols) };
        (r, c, c + self.gap)
    }

    fn elements(self, rows: usize, cols: usize) -> usize {
        let (r, _, stride) = self.stored(rows, cols);
        r * stride
    }

    fn at(self, rows: usize, cols: usize, i: usize, j: usize) -> usize {
        let stride = self.stored(rows, cols).2;
        if self.transposed { j * stride + i } else { i * stride + j }
    }

    fn view<T>(self, data: &[T], rows: usize, cols: usize) -> View<'_, T> {
        let (r, c, stride) = self.stored(rows, cols);
        let v = View::with_stride(data, r, c, stride);
        if self.transposed { v.t() } else { v }
    }

    fn view_mut<T>(self, data: &mut [T], rows: usize, cols: usize) -> ViewMut<'_, T> {
        let (r, c, stride) = self.stored(rows, cols);
        let v = ViewMut::with_stride(data, r, c, stride);
        if self.transposed { v.t() } else { v }
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    (any::<bool>(), 0usize..4).prop_map(|(transposed, gap)| Layout { transposed, gap })
}

fn element<T: Real>(v: &View<'_, T>, i: usize, j: usize) -> f64 {
    v.data[i * v.rs + j * v.cs].to_f64()
}

/// Σ alpha·A·B at (i, j).
fn naive<T: Real>(terms: &[Term<'_, T>], i: usize, j: usize) -> f64 {
    let product = |t: &Term<'_, T>| (0..t.a.cols).map(|p| element(&t.a, i, p) * element(&t.b, p, j)).sum::<f64>();
    terms.iter().map(|t| t.alpha.to_f64() * product(t)).sum()
}

struct Case {
    rows: usize,
    cols: usize,
    /// Inner sizes and layouts of A and B of each term.
    terms: Vec<(usize, Layout, Layout)>,
    out: Layout,
    accumulate: bool,
}

impl Case {
    fn check<T: Real>(&self, fill: impl Fn(usize, u64) -> Vec<T>, tol: f64) {
        let Case { rows, cols, .. } = *self;
        let stored: Vec<(Vec<T>, Vec<T>)> = (11u64..)
            .zip(&self.terms)
            .map(|(s, &(k, a, b))| (fill(a.elements(rows, k), s), fill(b.elements(k, cols), s + 50)))
            .collect();
        let terms: Vec<Term<'_, T>> = [1.0, -2.0, 0.5]
            .iter()
            .zip(&stored)
            .zip(&self.terms)
            .map(|((&alpha, (a, b)), &(k, la, lb))| {
                let (a, b) = (la.view(a, rows, k), lb.view(b, k, cols));
                Term { alpha: T::from_f64(alpha), a, b }
            })
            .collect();
        let before: Vec<T> = fill(self.out.elements(rows, cols), 5);
        let mut want = to_f64(&before);
        for i in 0..rows {
            for j in 0..cols {
                let c = &mut want[self.out.at(rows, cols, i, j)];
                *c = naive(&terms, i, j) + if self.accumulate { *c } else { 0.0 };
            }
        }
        let got = any_threads(|| {
            let mut c = before.clone();
            gemm_sum(self.out.view_mut(&mut c, rows, cols), self.accumulate, &terms);
            c
        });
        // gaps between rows are part of this and must be as they were
        close(&got, &want, tol);
        if let [Term { alpha, a, b }] = terms[..] {
            let mut c = before.clone();
            gemm(self.out.view_mut(&mut c, rows, cols), self.accumulate, alpha, a, b);
            assert_eq!(c, got);
            let mut c = before.clone();
            gemm_seq(self.out.view_mut(&mut c, rows, cols), self.accumulate, alpha, a, b);
            close(&c, &want, tol);
        }
    }
}

proptest! {
    #![proptest_config(cases(120))]

    #[test]
    fn small_sums_of_products(
        (rows, cols) in (0usize..24, 0usize..24),
        terms in prop::collection::vec((0usize..20, layouts(), layouts()), 0..=3),
        out in layouts(),
        accumulate: bool,
    ) {
        let case = Case { rows, cols, terms, out, accumulate };
        case.check::<f32>(data, tolerance::<f32>());
        case.check::<f64>(data, tolerance::<f64>());
    }

    #[test]
    fn vectors((n, k) in (1usize..80, 1usize..80), (a, b, out) in (layouts(), layouts(), layouts()), accumulate: bool) {
        for (rows, cols) in [(1, n), (n, 1)] {
            let case = Case { rows, cols, terms: vec![(k, a, b), (1, b, a)], out, accumulate };
            case.check::<f32>(data, tolerance::<f32>());
            case.check::<f64>(data, tolerance::<f64>());
        }
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// Deep enough for a grid of 2 to 16 blocks, and so small that some of them have nothing left. Whole numbers: exact.
    #[test]
    fn every_cut_into_blocks(
        (long, short) in (16usize..150, 1usize..40),
        wide: bool,
        flops in 4_000_000usize..70_000_000,
        (a, b, out) in (layouts(), layouts(), layouts()),
        accumulate: bool,
    ) {
        let (rows, cols) = if wide { (short, long) } else { (long, short) };
        let k = flops / (2 * rows * cols);
        let case = Case { rows, cols, terms: vec![(k, a, b), (2, b, a)], out, accumulate };
        case.check::<f32>(whole, 0.0);
    }
}

#[test]
fn blocks_with_nothing_left() {
    // shapes whose grids end in empty blocks, across and down
    for (rows, cols) in [(200, 1), (1, 200), (33, 33), (17, 130), (65, 5), (16, 17)] {
        let k = 66_000_000 / (2 * rows * cols);
        Case { rows, cols, terms: vec![(k, PLAIN, PLAIN)], out: PLAIN, accumulate: true }.check::<f32>(whole, 0.0);
    }
}

#[test]
fn large_products_of_rounded_numbers() {
    let t = Layout { transposed: true, gap: 3 };
    for (rows, cols, k) in [(131, 257, 307), (521, 64, 128), (3, 1009, 509)] {
        for (a, b) in [(PLAIN, PLAIN), (PLAIN, t), (t, PLAIN)] {
            let case = Case { rows, cols, terms: vec![(k, a, b), (8, b, a)], out: PLAIN, accumulate: false };
            case.check::<f32>(data, tolerance::<f32>());
            case.check::<f64>(data, tolerance::<f64>());
        }
    }
}

/// Large products are cut by the number of threads: the bits must not tell.
#[test]
fn large_products_on_any_number_of_threads() {
    let shapes = [
        (128, 193, 700),
        (1025, 129, 513),
        (300, 4097, 130),
        (257, 640, 3),
        (161, 161, 2000),
        (1024, 512, 512),
        (200, 640, 1030),
        (130, 1376, 520),
    ];
    for (m, n, k) in shapes {
        for t in [false, true] {
            let (a, b) = (data::<f32>(m * k, 1), data::<f32>(k * n, 2));
            let (h, low) = (data::<f32>(m * 16, 3), data::<f32>(n * 16, 4));
            let product = || {
                let mut c = vec![f32::NAN; m * n];
                let b = if t { View::new(&b, n, k).t() } else { View::new(&b, k, n) };
                let terms = [
                    Term { alpha: 1.0, a: View::new(&a, m, k), b },
                    Term { alpha: 0.7, a: View::new(&h, m, 16), b: View::new(&low, n, 16).t() },
                ];
                gemm_sum(ViewMut::new(&mut c, m, n), false, &terms);
                c
            };
            let one = any_threads(product);
            for threads in [5, 16] {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                assert!(pool.install(product) == one, "({m}, {n}, {k}) on {threads} threads");
            }
        }
    }
}

#[test]
fn an_output_that_is_not_accumulated_is_not_read() {
    let (a, b) = (data::<f32>(6, 1), data::<f32>(6, 2));
    for k in [0, 2] {
        let mut c = vec![f32::NAN; 9];
        gemm(ViewMut::new(&mut c, 3, 3), false, 1.0, View::new(&a, 3, k), View::new(&b, k, 3));
        assert!(c.iter().all(|c| c.is_finite()), "inner size {k}: {c:?}");
    }
    let mut c = vec![f32::NAN; 9];
    gemm_sum(ViewMut::new(&mut c, 3, 3), false, &[]);
    assert_eq!(c, [0.0; 9]);
}

#[test]
fn gradients_are_products_with_transposes() {
    let (m, n, k) = (5, 3, 7);
    let (a, b, dc) = (data::<f64>(m * k, 1), data::<f64>(k * n, 2), data::<f64>(m * n, 3));
    let loss = |a: &[f64], b: &[f64]| {
        let mut c = vec![0.0; m * n];
        gemm(ViewMut::new(&mut c, m, n), false, 0.5, View::new(a, m, k), View::new(b, k, n));
        dot(&c, &dc)
    };
    let (mut da, mut db) = (vec![0.0; m * k], vec![0.0; k * n]);
    gemm(ViewMut::new(&mut da, m, k), false, 0.5, View::new(&dc, m, n), View::new(&b, k, n).t());
    // the same as dcᵀ·a into a transposed output
    gemm(ViewMut::new(&mut db, k, n).t(), false, 0.5, View::new(&dc, m, n).t(), View::new(&a, m, k));
    is_gradient(&da, &a, &|a| loss(a, &b));
    is_gradient(&db, &b, &|b| loss(&a, b));
}

#[test]
fn parts_of_views() {
    let mut x: Vec<f64> = (0..20).map(f64::from).collect();
    let v = View::with_stride(&x, 4, 3, 5).row_range(1..3).col_range(1..3);
    assert_eq!((v.rows, v.cols, element(&v, 0, 0), element(&v, 1, 1)), (2, 2, 6.0, 12.0));
    let v = View::new(&x, 4, 5);
    assert_eq!((v.row_range(4..4).rows, v.col_range(5..5).cols), (0, 0));
    let mut m = ViewMut::with_stride(&mut x, 4, 3, 5);
    assert_eq!(element(&m.reborrow().row_range(2..4).col_range(2..3).as_view(), 1, 0), 17.0);
    assert_eq!((m.as_view().rows, m.as_view().cols), (4, 3));
}

#[test]
#[should_panic(expected = "shapes do not fit: (2, 2) from (2, 3)·(2, 2)")]
fn shapes_that_do_not_fit() {
    let (x, mut c) = ([0f32; 6], [0f32; 4]);
    gemm(ViewMut::new(&mut c, 2, 2), false, 1.0, View::new(&x, 2, 3), View::new(&x, 2, 2));
}

#[test]
#[should_panic(expected = "a 2×4 view needs 8 elements, got 6")]
fn views_of_too_little() {
    View::new(&[0f32; 6], 2, 4);
}

#[test]
#[should_panic(expected = "rows of 3 overlap at a stride of 2")]
fn outputs_that_overlap() {
    ViewMut::with_stride(&mut [0f32; 8], 2, 3, 2);
}
