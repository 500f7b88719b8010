//! Root-mean-square norm (arXiv:1910.07467) and layer norm (arXiv:1607.06450), row by row, with their gradients.
//!
//! Forward passes keep one or two numbers per row, from which the backward passes rebuild the normalised row.

use super::{
    Real,
    elementwise::{bias_grad, column_sums},
    par::{Rows, RowsMut, for_rows},
    simd::{centred_square_sum, dot, dot3, simd, sum},
};

/// y = x / √(mean x² + eps) · w per row of `cols`; `rstd[i]` gets 1/√(…) of row i.
pub fn rms_norm<T: Real>(x: &[T], w: &[T], eps: f64, y: &mut [T], rstd: &mut [T], rows: usize, cols: usize) {
    assert_eq!((x.len(), y.len(), rstd.len(), w.len()), (rows * cols, rows * cols, rows, cols), "rms_norm");
    let eps = T::from_f64(eps);
    for_rows((Rows(x, cols), RowsMut(y, cols), RowsMut(rstd, 1)), rows, cols, |(x, y, rstd), _| {
        simd(
            #[inline(always)]
            || {
                for (i, rs) in rstd.0.iter_mut().enumerate() {
                    let r = i * cols..(i + 1) * cols;
                    *rs = rms_row(&x.0[r.clone()], w, eps, &mut y.0[r]);
                }
            },
        );
    });
}

#[inline(always)]
fn rms_row<T: Real>(x: &[T], w: &[T], eps: T, y: &mut [T]) -> T {
    let rstd = T::ONE / (dot(x, x) / T::from_f64(x.len() as f64) + eps).sqrt();
    for ((y, &x), &w) in y.iter_mut().zip(x).zip(w) {
        *y = x * rstd * w;
    }
    rstd
}

/// x += residual, then the RMS norm of the new x: `y`, `rstd` as in [`rms_norm`].
#[allow(clippy::too_many_arguments)]
pub fn add_rms_norm<T: Real>(
    x: &mut [T],
    residual: &[T],
    w: &[T],
    eps: f64,
    y: &mut [T],
    rstd: &mut [T],
    rows: usize,
    cols: usize,
) {
    let n = rows * cols;
    assert_eq!((x.len(), residual.len(), y.len(), rstd.len(), w.len()), (n, n, n, rows, cols), "add_rms_norm");
    let eps = T::from_f64(eps);
    let parts = (RowsMut(x, cols), Rows(residual, cols), RowsMut(y, cols), RowsMut(rstd, 1));
    for_rows(parts, rows, cols, |(x, residual, y, rstd), _| {
        simd(
            #[inline(always)]
            || {
                for (i, rs) in rstd.0.iter_mut().enumerate() {
                    let r = i * cols..(i + 1) * cols;
                    let x = &mut x.0[r.clone()];
                    for (x, &a) in x.iter_mut().zip(&residual.0[r.clone()]) {
                        *x += a;
                    }
                    *rs = rms_row(x, w, eps, &mut y.0[r]);
                }
            },
        );
    });
}

/// Gradient of [`rms_norm`]: with g = dy·w and x̂ = x·rstd, dx = rstd·(g − x̂·mean(g·x̂)), added to `dx` when
/// `accumulate_dx`; `dw` += Σ rows dy·x̂.
#[allow(clippy::too_many_arguments)]
pub fn rms_norm_backward<T: Real>(
    x: &[T],
    w: &[T],
    rstd: &[T],
    dy: &[T],
    dx: &mut [T],
    accumulate_dx: bool,
    dw: Option<&mut [T]>,
    rows: usize,
    cols: usize,
) {
    let n = rows * cols;
    assert_eq!((x.len(), dy.len(), dx.len(), rstd.len(), w.len()), (n, n, n, rows, cols), "rms_norm_backward");
    let parts = (Rows(x, cols), Rows(dy, cols), RowsMut(dx, cols), Rows(rstd, 1));
    for_rows(parts, rows, 2 * cols, |(x, dy, dx, rstd), _| {
        simd(
            #[inline(always)]
            || {
                for (i, &rs) in rstd.0.iter().enumerate() {
                    let r = i * cols..(i + 1) * cols;
                    rms_row_backward(&x.0[r.clone()], w, rs, &dy.0[r.clone()], &mut dx.0[r], accumulate_dx);
                }
            },
        );
    });
    if let Some(dw) = dw {
        assert_eq!(dw.len(), cols, "rms_norm_backward: dw");
        column_sums(rows, cols, dw, |i, cols_from, out| {
            let at = i * cols + cols_from;
            let (x, dy) = (&x[at..at + out.len()], &dy[at..at + out.len()]);
            for ((o, &x), &g) in out.iter_mut().zip(x).zip(dy) {
                *o = (x * rstd[i]).mul_add(g, *o);
            }
        });
    }
}

#[inline(always)]
fn rms_row_backward<T: Real>(x: &[T], w: &[T], rstd: T, dy: &[T], dx: &mut [T], accumulate: bool) {
    let mean = dot3(dy, w, x) * rstd / T::from_f64(x.len() as f64);
    let k = -(mean * rstd * rstd);
    if accumulate {
        for (((d, &x), &w), &g) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *d += (g * w).mul_add(rstd, x * k);
        }
    } else {
        for (((d, &x), &w), &g) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *d = (g * w).mul_add(rstd, x * k);
        }
    }
}

/// y = (x − mean) / √(var + eps) · w + b per row; `mean` and `rstd` get one number per row.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm<T: Real>(
    x: &[T],
    w: &[T],
    b: &[T],
    eps: f64,
    y: &mut [T],
    mean: &mut [T],
    rstd: &mut [T],
    rows: usize,
    cols: usize,
) {
    let n = rows * cols;
    assert_eq!(
        (x.len(), y.len(), mean.len(), rstd.len(), w.len(), b.len()),
        (n, n, rows, rows, cols, cols),
        "layer_norm"
    );
    let eps = T::from_f64(eps);
    let size = T::from_f64(cols as f64);
    let parts = (Rows(x, cols), RowsMut(y, cols), RowsMut(mean, 1), RowsMut(rstd, 1));
    for_rows(parts, rows, cols, |(x, y, mean, rstd), _| {
        simd(
            #[inline(always)]
            || {
                for (i, (m, rs)) in mean.0.iter_mut().zip(rstd.0.iter_mut()).enumerate() {
                    let r = i * cols..(i + 1) * cols;
                    let x = &x.0[r.clone()];
                    *m = sum(x) / size;
                    *rs = T::ONE / (centred_square_sum(x, *m) / size + eps).sqrt();
                    let (m, rs) = (*m, *rs);
                    for (((y, &x), &w), &b) in y.0[r].iter_mut().zip(x).zip(w).zip(b) {
                        *y = ((x - m) * rs).mul_add(w, b);
                    }
                }
            },
        );
    });
}

/// Gradient of [`layer_norm`]: with g = dy·w and x̂ the normalised row, dx = rstd·(g − mean(g) − x̂·mean(g·x̂)), added to
/// `dx` when `accumulate_dx`; `dw` += Σ rows dy·x̂ and `db` += Σ rows dy.
#[allow(clippy::too_many_arguments)]
pub fn layer_norm_backward<T: Real>(
    x: &[T],
    w: &[T],
    mean: &[T],
    rstd: &[T],
    dy: &[T],
    dx: &mut [T],
    accumulate_dx: bool,
    dw_db: Option<(&mut [T], &mut [T])>,
    rows: usize,
    cols: usize,
) {
    let n = rows * cols;
    assert_eq!(
        (x.len(), dy.len(), dx.len(), mean.len(), rstd.len(), w.len()),
        (n, n, n, rows, rows, cols),
        "layer_norm_backward"
    );
    let parts = (Rows(x, cols), Rows(dy, cols), RowsMut(dx, cols), Rows(mean, 1), Rows(rstd, 1));
    for_rows(parts, rows, 2 * cols, |(x, dy, dx, mean, rstd), _| {
        simd(
            #[inline(always)]
            || {
                for (i, (&m, &rs)) in mean.0.iter().zip(rstd.0).enumerate() {
                    let r = i * cols..(i + 1) * cols;
                    layer_row_backward(&x.0[r.clone()], w, m, rs, &dy.0[r.clone()], &mut dx.0[r], accumulate_dx);
                }
            },
        );
    });
    if let Some((dw, db)) = dw_db {
        assert_eq!((dw.len(), db.len()), (cols, cols), "layer_norm_backward: dw, db");
        column_sums(rows, cols, dw, |i, cols_from, out| {
            let at = i * cols + cols_from;
            let (x, dy) = (&x[at..at + out.len()], &dy[at..at + out.len()]);
            for ((o, &x), &g) in out.iter_mut().zip(x).zip(dy) {
                *o = ((x - mean[i]) * rstd[i]).mul_add(g, *o);
            }
        });
        bias_grad(dy, db, rows, cols);
    }
}

#[inline(always)]
fn layer_row_backward<T: Real>(x: &[T], w: &[T], mean: T, rstd: T, dy: &[T], dx: &mut [T], accumulate: bool) {
    let size = T::from_f64(x.len() as f64);
    let g_sum = dot(dy, w);
    // Σ g·x̂ = rstd·(Σ g·x − mean·Σ g) would cancel for a large mean, hence the loop of its own
    let gx = centred_dot3(dy, w, x, mean) * rstd;
    let (g_mean, k) = (g_sum / size, gx / size * rstd);
    if accumulate {
        for (((d, &x), &w), &g) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *d += rstd * (g * w - g_mean - (x - mean) * k);
        }
    } else {
        for (((d, &x), &w), &g) in dx.iter_mut().zip(x).zip(w).zip(dy) {
            *d = rstd * (g * w - g_mean - (x - mean) * k);
        }
    }
}

/// Σ aᵢ·bᵢ·(cᵢ − m).
#[inline(always)]
fn centred_dot3<T: Real>(a: &[T], b: &[T], c: &[T], m: T) -> T {
    const L: usize = 32;
    let mut acc = [T::ZERO; L];
    let ((ac, ar), (bc, br), (cc, cr)) = (a.as_chunks::<L>(), b.as_chunks::<L>(), c.as_chunks::<L>());
    for ((x, y), z) in ac.iter().zip(bc).zip(cc) {
        for l in 0..L {
            acc[l] = (x[l] * y[l]).mul_add(z[l] - m, acc[l]);
        }
    }
    for (s, ((&x, &y), &z)) in acc.iter_mut().zip(ar.iter().zip(br).zip(cr)) {
        *s = (x * y).mul_add(z - m, *s);
    }
    sum(&acc)
}
