//! Norms against their formulas, and their gradients against differences.

use super::common::{any_threads, cases, close, data, dot, is_gradient, is_gradient_along, to_f64, tolerance};
use loram_nn::kernels::Real;
use loram_nn::kernels::norm::*;
use proptest::prelude::*;

const EPS: f64 = 1e-5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Norm {
    Rms,
    Layer,
}

impl Norm {
    fn naive(self, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
        let cols = w.len();
        let row = |x: &[f64]| -> Vec<f64> {
            let n = cols as f64;
            let mean = if self == Norm::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
            let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
            let of = |((x, w), b): ((&f64, &f64), &f64)| (x - mean) / (var + EPS).sqrt() * w + b;
            x.iter().zip(w).zip(b).map(of).collect()
        };
        x.chunks_exact(cols).flat_map(row).collect()
    }

    /// y, then the mean (layer norm) and 1/√(…) of each row.
    fn forward<T: Real>(self, x: &[T], w: &[T], b: &[T]) -> Vec<T> {
        let (cols, rows) = (w.len(), x.len() / w.len());
        let mut out = vec![T::ZERO; x.len() + 2 * rows];
        let (y, stats) = out.split_at_mut(x.len());
        let (mean, rstd) = stats.split_at_mut(rows);
        match self {
            Norm::Rms => rms_norm(x, w, EPS, y, rstd, rows, cols),
            Norm::Layer => layer_norm(x, w, b, EPS, y, mean, rstd, rows, cols),
        }
        out
    }

    /// dx, dw and (layer norm) db, each added to `start`.
    fn backward<T: Real>(self, x: &[T], w: &[T], stats: &[T], dy: &[T], start: T) -> Vec<T> {
        let (cols, rows) = (w.len(), x.len() / w.len());
        let (mean, rstd) = stats.split_at(rows);
        let mut out = vec![start; x.len() + 2 * cols];
        let (dx, weights) = out.split_at_mut(x.len());
        let (dw, db) = weights.split_at_mut(cols);
        let add = start != T::ZERO;
        match self {
            Norm::Rms => rms_norm_backward(x, w, rstd, dy, dx, add, Some(dw), rows, cols),
            Norm::Layer => layer_norm_backward(x, w, mean, rstd, dy, dx, add, Some((dw, db)), rows, cols),
        }
        out
    }

    fn check<T: Real>(self, rows: usize, cols: usize) {
        let (x, dy) = (data::<T>(rows * cols, 1), data::<T>(rows * cols, 4));
        let (w, b) = (data::<T>(cols, 2), if self == Norm::Rms { vec![T::ZERO; cols] } else { data(cols, 3) });
        let out = any_threads(|| self.forward(&x, &w, &b));
        let (y, stats) = out.split_at(x.len());
        close(y, &self.naive(&to_f64(&x), &to_f64(&w), &to_f64(&b)), tolerance::<T>());

        let grads = any_threads(|| self.backward(&x, &w, stats, &dy, T::ZERO));
        let added = any_threads(|| self.backward(&x, &w, stats, &dy, T::ONE));
        let used = if self == Norm::Rms { x.len() + cols } else { grads.len() };
        let want: Vec<f64> = grads[..used].iter().map(|g| g.to_f64() + 1.0).collect();
        close(&added[..used], &want, tolerance::<T>());

        if T::NAME == "f32" {
            let [x, w, b, dy] = [&x, &w, &b, &dy].map(|x| to_f64(x));
            let exact = self.backward(&x, &w, &self.forward(&x, &w, &b)[x.len()..], &dy, 0.0);
            // together: dx alone may be all but 0, the rest of large terms
            return close(&grads, &exact, 1e-4);
        }
        let (grads, [x, w, b, dy]) = (to_f64(&grads), [&x, &w, &b, &dy].map(|x| to_f64(x)));
        let (dx, weights) = grads.split_at(x.len());
        let (dw, db) = weights.split_at(cols);
        let check = if x.len() < 100 { is_gradient } else { is_gradient_along };
        check(dx, &x, &|x| dot(&self.naive(x, &w, &b), &dy));
        check(dw, &w, &|w| dot(&self.naive(&x, w, &b), &dy));
        if self == Norm::Layer {
            check(db, &b, &|b| dot(&self.naive(&x, &w, b), &dy));
        }
    }
}

proptest! {
    #![proptest_config(cases(60))]

    #[test]
    fn norms_of_odd_shapes(rows in 0usize..8, cols in 1usize..70, norm in prop::sample::select(vec![Norm::Rms, Norm::Layer])) {
        norm.check::<f32>(rows, cols);
        norm.check::<f64>(rows, cols);
    }

    #[test]
    fn a_sum_before_a_norm(rows in 0usize..8, cols in 1usize..70) {
        added::<f32>(rows, cols);
        added::<f64>(rows, cols);
    }
}

#[test]
fn norms_on_several_threads() {
    for (rows, cols) in [(131, 641), (2, 65_537), (1100, 67)] {
        for norm in [Norm::Rms, Norm::Layer] {
            norm.check::<f32>(rows, cols);
            norm.check::<f64>(rows, cols);
        }
        added::<f32>(rows, cols);
    }
}

/// `add_rms_norm` is a sum and a norm, to the bit.
fn added<T: Real>(rows: usize, cols: usize) {
    let (x, residual, w) = (data::<T>(rows * cols, 1), data::<T>(rows * cols, 2), data::<T>(cols, 3));
    let sum: Vec<T> = x.iter().zip(&residual).map(|(&a, &b)| a + b).collect();
    let got = any_threads(|| {
        let (mut x, mut y, mut rstd) = (x.clone(), vec![T::ZERO; x.len()], vec![T::ZERO; rows]);
        add_rms_norm(&mut x, &residual, &w, EPS, &mut y, &mut rstd, rows, cols);
        [x, y, rstd].concat()
    });
    let plain = Norm::Rms.forward(&sum, &w, &[]);
    // `forward` leaves room for means
    assert_eq!(got, [&sum[..], &plain[..x.len()], &plain[x.len() + rows..]].concat());
}

#[test]
fn a_large_mean_does_not_cancel() {
    let x: Vec<f32> = data::<f32>(128, 1).iter().map(|x| 4096.0 + x * 8.0).collect();
    let (w, b, dy) = (data::<f32>(64, 2), data::<f32>(64, 3), data::<f32>(128, 4));
    let out = Norm::Layer.forward(&x, &w, &b);
    close(&out[..128], &Norm::Layer.naive(&to_f64(&x), &to_f64(&w), &to_f64(&b)), 2e-4);
    let (xd, wd) = (to_f64(&x), to_f64(&w));
    let exact = Norm::Layer.backward(&xd, &wd, &Norm::Layer.forward(&xd, &wd, &to_f64(&b))[128..], &to_f64(&dy), 0.0);
    close(&Norm::Layer.backward(&x, &w, &out[128..], &dy, 0.0), &exact, 2e-4);
}
