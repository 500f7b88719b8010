//! Statistics of chosen linear layers while the model runs: sums over their inputs, or the gradient of their weight, without
//! training anything. Only these sums are kept, one matrix for each layer.

use crate::kernels::elementwise::add_bias;
use crate::kernels::gemm::gemm;
use crate::ops::add_t_times;
use crate::tensor::{Element, Tensor, typed};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// The statistic that is summed up, for a layer with weight (n, m).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Observe {
    /// Σ(x − mean)·(x − mean)ᵀ over tokens, (m, m).
    Covariance,
    /// The mean over sequences of XᵀX, each X divided by the size of its largest value (2406.05223), (m, m).
    Moment,
    /// The gradient of the loss by the weight, (n, m).
    Gradient,
}

/// Sums of the layers that are watched.
#[derive(Debug)]
pub(crate) struct Watch {
    pub what: Observe,
    sums: BTreeMap<String, Mutex<Sums>>,
    /// Tokens per sequence of the batch at hand.
    lengths: Vec<usize>,
    /// Tokens of the batch that count; `None`: all.
    counted: Option<Vec<usize>>,
    /// Inputs of the layer that ran last, and its path: layers beside each other often share them.
    last: Mutex<Option<(String, Tensor)>>,
}

#[derive(Debug, Default)]
struct Sums {
    matrix: Option<Tensor>,
    mean: Vec<f64>,
    count: usize,
    /// The layer with the same inputs that does the work for this one.
    same_as: Option<String>,
}

impl Watch {
    pub fn new(what: Observe, paths: impl IntoIterator<Item = String>) -> Watch {
        let sums = paths.into_iter().map(|path| (path, Mutex::default())).collect();
        Watch { what, sums, lengths: Vec::new(), counted: None, last: Mutex::new(None) }
    }

    /// Returns whether the backward pass has to reach every layer.
    pub fn backward(&self) -> bool {
        self.what == Observe::Gradient
    }

    pub fn begin(&mut self, lengths: &[usize], counted: &[bool]) {
        self.lengths = lengths.to_vec();
        self.counted = (!counted.is_empty()).then(|| (0..counted.len()).filter(|&i| counted[i]).collect());
        *self.last.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The layer `path` reads x (t, m).
    pub fn input(&self, path: &str, x: &Tensor) {
        let Some(sums) = self.sums.get(path).filter(|_| !self.backward()) else { return };
        // sums are kept on the CPU
        let x = x.on_cpu();
        let x = &*x;
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.same_as.is_some() {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if sums.count == 0
            && let Some((other, seen)) = last.as_ref()
            && same(seen, x)
        {
            sums.same_as = Some(other.clone());
            return;
        }
        match self.what {
            Observe::Covariance => sums.covariance(x, self.counted.as_deref(), self.lengths.iter().sum()),
            _ => sums.moment(x, &self.lengths),
        }
        *last = Some((path.to_string(), x.copy()));
    }

    /// The layer `path` read x (t, m), and the loss has the gradient dy (t, n) by its output.
    pub fn gradient(&self, path: &str, x: &Tensor, dy: &Tensor) {
        let Some(sums) = self.sums.get(path).filter(|_| self.backward()) else { return };
        let mut sums = sums.lock().unwrap_or_else(PoisonError::into_inner);
        let matrix = sums.matrix.get_or_insert_with(|| Tensor::zeros(x.compute().exact(), dy.cols(), x.cols()));
        add_t_times(matrix, 1.0, dy, x);
    }

    /// The sums by path, in f32; a layer that nothing passed through has none.
    pub fn finish(self) -> BTreeMap<String, Vec<f32>> {
        let own: BTreeMap<String, Sums> = self
            .sums
            .into_iter()
            .map(|(path, sums)| (path, sums.into_inner().unwrap_or_else(PoisonError::into_inner)))
            .collect();
        let value = |sums: &Sums| {
            let mut out = sums.matrix.as_ref()?.to_f32_vec();
            if self.what == Observe::Moment {
                out.iter_mut().for_each(|x| *x /= sums.count as f32);
            }
            Some(out)
        };
        let by_path = |sums: &Sums| value(sums.same_as.as_ref().map_or(sums, |path| &own[path]));
        own.iter().filter_map(|(path, sums)| Some((path.clone(), by_path(sums)?))).collect()
    }
}

fn same(x: &Tensor, y: &Tensor) -> bool {
    (x.rows(), x.cols()) == (y.rows(), y.cols()) && typed!(x, T, x.as_slice::<T>() == y.as_slice::<T>())
}

impl Sums {
    /// Adds the rows of x that count. With k rows so far, their mean moves by δ, and the sum gains k·t/(k + t)·δδᵀ besides
    /// the batch's own: as a row beside those of the batch, without the difference of two large numbers.
    fn covariance(&mut self, x: &Tensor, counted: Option<&[usize]>, tokens: usize) {
        let (m, compute) = (x.cols(), x.compute());
        // a head that reads one token of each sequence has rows of its own
        let mut rows = match counted.filter(|_| x.rows() == tokens) {
            None => x.copy(),
            Some(counted) => x.gather_rows(counted),
        };
        let t = rows.rows();
        if t == 0 {
            return;
        }
        let mut sum = vec![0.0; m];
        typed!(rows, T, {
            for row in rows.as_slice::<T>().chunks_exact(m) {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += x.to_f64());
            }
        });
        let mean: Vec<f64> = sum.iter().map(|s| s / t as f64).collect();
        let matrix = self.matrix.get_or_insert_with(|| Tensor::zeros(compute, m, m));
        typed!(rows, T, {
            let minus: Vec<T> = mean.iter().map(|x| T::from_f64(-x)).collect();
            add_bias::<T>(rows.as_mut_slice(), &minus, t, m);
            gram::<T>(matrix, &rows);
            if self.count > 0 {
                let weight = (self.count as f64 * t as f64 / (self.count + t) as f64).sqrt();
                let mut shift = Tensor::zeros(compute, 1, m);
                let shifted = shift.as_mut_slice::<T>().iter_mut();
                shifted
                    .zip(mean.iter().zip(&self.mean))
                    .for_each(|(s, (new, old))| *s = T::from_f64(weight * (new - old)));
                gram::<T>(matrix, &shift);
            }
        });
        if self.mean.is_empty() {
            self.mean = vec![0.0; m];
        }
        let share = t as f64 / (self.count + t) as f64;
        self.mean.iter_mut().zip(&mean).for_each(|(old, new)| *old += share * (new - *old));
        self.count += t;
    }

    /// Adds XᵀX of every sequence, scaled to its largest value.
    fn moment(&mut self, x: &Tensor, lengths: &[usize]) {
        let m = x.cols();
        // one row per sequence: a head that reads one token of each
        let ones = vec![1; x.rows()];
        let lengths = if lengths.iter().sum::<usize>() == x.rows() { lengths } else { &ones };
        let matrix = self.matrix.get_or_insert_with(|| Tensor::zeros(x.compute(), m, m));
        let mut scaled = x.copy();
        typed!(scaled, T, {
            let mut rest = scaled.as_mut_slice::<T>();
            for n in lengths {
                let (sequence, after) = rest.split_at_mut(n * m);
                let top = sequence.iter().map(|x| x.to_f64()).fold(f64::NEG_INFINITY, f64::max).abs();
                let factor = T::from_f64(if top > 0.0 && top.is_finite() { 1.0 / top } else { 1.0 });
                sequence.iter_mut().for_each(|x| *x *= factor);
                rest = after;
            }
            gram::<T>(matrix, &scaled);
        });
        self.count += lengths.len();
    }
}

/// out += xᵀ·x.
fn gram<T: Element>(out: &mut Tensor, x: &Tensor) {
    gemm::<T>(out.view_mut(), true, T::ONE, x.view().t(), x.view());
}
