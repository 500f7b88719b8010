//! Operations on tensors: each picks the kernel for the number type and the place of its operands.

mod attention;

pub(crate) use attention::{
    Tables, add_sinks, attention, attention_backward, attention_cached, disentangled, disentangled_backward,
};

use crate::Result;
#[cfg(gpu)]
use crate::cuda;
#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::kernels::activation::{self, Act};
use crate::kernels::gemm::gemm;
use crate::kernels::{elementwise, embedding, norm, pooling};
use crate::tensor::{Tensor, typed};
use std::ops::Range;

/// Statistics of a norm for each row: 1/σ, and the mean for layer norm.
#[derive(Debug)]
pub(crate) struct NormStats {
    rstd: Tensor,
    mean: Option<Tensor>,
}

/// RMS norm (1910.07467), or layer norm (1607.06450) with a bias `b`, over the columns: x (t, d) → (t, d). On a GPU the result can
/// have `room` further columns, of any value.
pub(crate) fn norm(x: &Tensor, w: &Tensor, b: Option<&Tensor>, eps: f64, room: usize) -> (Tensor, NormStats) {
    let (rows, cols) = (x.rows(), x.cols());
    let mut y = Tensor::scratch(x.compute(), rows, cols + room);
    let mut rstd = Tensor::scratch(x.compute().exact(), 1, rows);
    let Some(b) = b else {
        typed!(x, T, {
            let (y, rstd) = (y.as_mut_slice::<T>(), rstd.as_mut_slice());
            norm::rms_norm::<T>(x.as_slice(), w.as_slice(), eps, y, rstd, rows, cols);
        }, gpu: cuda::ops::rms_norm(x, w, eps, &mut y, &mut rstd));
        return (y, NormStats { rstd, mean: None });
    };
    let mut mean = Tensor::scratch(x.compute().exact(), 1, rows);
    typed!(x, T, {
        let (w, b) = (w.as_slice::<T>(), b.as_slice());
        let (y, mean, rstd) = (y.as_mut_slice::<T>(), mean.as_mut_slice(), rstd.as_mut_slice());
        norm::layer_norm(x.as_slice(), w, b, eps, y, mean, rstd, rows, cols);
    }, gpu: cuda::ops::layer_norm(x, w, b, eps, &mut y, &mut mean, &mut rstd));
    (y, NormStats { rstd, mean: Some(mean) })
}

/// dx = (accumulate ? dx : 0) + gradient of [`norm`], for `(dx, accumulate)`. Adds the gradients of the weight to `dw` and
/// of the bias to `db`, (1, d); a layer norm has both or none.
pub(crate) fn norm_backward(
    x: &Tensor,
    w: &Tensor,
    stats: &NormStats,
    dy: &Tensor,
    (dx, accumulate): (&mut Tensor, bool),
    dw: Option<&mut Tensor>,
    db: Option<&mut Tensor>,
) {
    let (rows, cols) = (x.rows(), x.cols());
    typed!(x, T, {
        let dw = dw.map(|t| t.as_mut_slice::<T>());
        let (x, dy) = (x.as_slice::<T>(), dy.as_slice());
        let (dx, rstd) = (dx.as_mut_slice(), stats.rstd.as_slice());
        match &stats.mean {
            None => norm::rms_norm_backward(x, w.as_slice(), rstd, dy, dx, accumulate, dw, rows, cols),
            Some(mean) => {
                let both = dw.zip(db.map(|t| t.as_mut_slice::<T>()));
                let mean = mean.as_slice();
                norm::layer_norm_backward(x, w.as_slice(), mean, rstd, dy, dx, accumulate, both, rows, cols);
            }
        }
    }, gpu: {
        let mean = stats.mean.as_ref();
        cuda::ops::norm_backward(x, w, mean, &stats.rstd, dy, dx, accumulate);
        if let Some(dw) = dw {
            cuda::ops::column_sums(dy, db.as_deref(), Some((x, mean, &stats.rstd)), Some(dw));
        }
    });
}

/// y += x.
pub(crate) fn add_assign(y: &mut Tensor, x: &Tensor) {
    typed!(
        x, T, elementwise::add_assign::<T>(y.as_mut_slice(), x.as_slice()),
        gpu: cuda::ops::add_assign(y, x)
    );
}

/// Adds a vector (cols) to every row of y.
pub(crate) fn add_bias(y: &mut Tensor, bias: &Tensor) {
    let (rows, cols) = (y.rows(), y.cols());
    typed!(
        y, T, elementwise::add_bias::<T>(y.as_mut_slice(), bias.as_slice(), rows, cols),
        gpu: cuda::ops::add_bias(y, bias)
    );
}

/// db += Σ rows of dy.
pub(crate) fn bias_grad(dy: &Tensor, db: &mut Tensor) {
    let (rows, cols) = (dy.rows(), dy.cols());
    typed!(
        dy, T, elementwise::bias_grad::<T>(dy.as_slice(), db.as_mut_slice(), rows, cols),
        gpu: cuda::ops::column_sums(dy, Some(db), None, None)
    );
}

/// y = (accumulate ? y : 0) + dropout(x), which is also how a gradient passes.
pub(crate) fn dropout(x: &Tensor, y: &mut Tensor, p: f64, seed: u64, accumulate: bool) {
    typed!(
        x, T, elementwise::dropout_backward::<T>(x.as_slice(), y.as_mut_slice(), p, seed, 0, accumulate),
        gpu: cuda::ops::dropout(x, y, p, seed, accumulate)
    );
}

/// act(x).
pub(crate) fn act(act: Act, x: &Tensor) -> Tensor {
    let mut y = Tensor::scratch(x.compute(), x.rows(), x.cols());
    typed!(
        x, T, activation::act_forward::<T>(act, x.as_slice(), y.as_mut_slice()),
        gpu: cuda::ops::act(act, x, &mut y)
    );
    y
}

/// g ← g·act′(x).
pub(crate) fn act_backward(act: Act, x: &Tensor, g: &mut Tensor) {
    typed!(
        x, T, activation::act_backward_inplace::<T>(act, x.as_slice(), g.as_mut_slice()),
        gpu: cuda::ops::act_backward(act, x, g)
    );
}

/// act(gate)·up.
pub(crate) fn gated(act: Act, gate: &Tensor, up: &Tensor) -> Tensor {
    let mut y = Tensor::scratch(gate.compute(), gate.rows(), gate.cols());
    typed!(
        gate, T, activation::gated_forward::<T>(act, gate.as_slice(), up.as_slice(), y.as_mut_slice()),
        gpu: cuda::ops::gated(act, gate, up, &mut y)
    );
    y
}

/// Gradient of [`gated`] in place: gate becomes dgate, up becomes dup. dy becomes act(gate)·up, which is returned.
pub(crate) fn gated_backward(act: Act, gate: &mut Tensor, up: &mut Tensor, mut dy: Tensor) -> Tensor {
    typed!(dy, T, {
        let (gate, up) = (gate.as_mut_slice::<T>(), up.as_mut_slice());
        activation::gated_backward_inplace(act, gate, up, dy.as_mut_slice());
    }, gpu: cuda::ops::gated_backward(act, gate, up, &mut dy));
    dy
}

/// The sequences of a pass, one after another.
pub(crate) struct Sequences<'a> {
    /// Tokens of each.
    pub lengths: &'a [usize],
    /// Position of every token in its sequence.
    pub positions: &'a [u32],
    #[cfg(gpu)]
    pub layout: cuda::Layout,
}

impl<'a> Sequences<'a> {
    pub fn new(lengths: &'a [usize], positions: &'a [u32]) -> Sequences<'a> {
        Sequences {
            lengths,
            positions,
            #[cfg(gpu)]
            layout: cuda::Layout::default(),
        }
    }
}

/// Neighbouring columns of x (t, n), as a matrix of their own.
pub(crate) fn columns(x: &Tensor, at: Range<usize>) -> Tensor {
    let mut out = Tensor::scratch(x.compute(), x.rows(), at.len());
    copy_columns(x, at.start, &mut out, 0, at.len());
    out
}

/// The columns of all, one after another: (t, Σ n).
pub(crate) fn side_by_side(all: &[Tensor]) -> Tensor {
    let first = all.first().expect("a matrix");
    let mut out = Tensor::scratch(first.compute(), first.rows(), all.iter().map(Tensor::cols).sum());
    let mut at = 0;
    for x in all {
        copy_columns(x, 0, &mut out, at, x.cols());
        at += x.cols();
    }
    out
}

/// Columns of y from `to` on ← `width` columns of x from `from` on.
fn copy_columns(x: &Tensor, from: usize, y: &mut Tensor, to: usize, width: usize) {
    let (x_cols, y_cols) = (x.cols(), y.cols());
    if width == 0 {
        return;
    }
    typed!(x, T, {
        let rows = x.as_slice::<T>().chunks_exact(x_cols).zip(y.as_mut_slice::<T>().chunks_exact_mut(y_cols));
        rows.for_each(|(x, y)| y[to..to + width].copy_from_slice(&x[from..from + width]));
    }, gpu: cuda::rows::copy_columns(x, from, y, to, width));
}

/// a·bᵀ as a new tensor.
pub(crate) fn times_t(a: &Tensor, b: &Tensor) -> Tensor {
    let mut out = Tensor::scratch(a.compute(), a.rows(), b.rows());
    typed!(
        a, T, gemm::<T>(out.view_mut(), false, T::ONE, a.view(), b.view().t()),
        gpu: product(&mut out, false, 1.0, Side::of(a), Side::t(b))
    );
    out
}

/// s·a·b as a new tensor.
pub(crate) fn times(s: f64, a: &Tensor, b: &Tensor) -> Tensor {
    let mut out = Tensor::scratch(a.compute(), a.rows(), b.cols());
    typed!(
        a, T, gemm::<T>(out.view_mut(), false, T::from_f64(s), a.view(), b.view()),
        gpu: product(&mut out, false, s, Side::of(a), Side::of(b))
    );
    out
}

/// out += s·aᵀ·b.
pub(crate) fn add_t_times(out: &mut Tensor, s: f64, a: &Tensor, b: &Tensor) {
    typed!(
        a, T, gemm::<T>(out.view_mut(), true, T::from_f64(s), a.view().t(), b.view()),
        gpu: product(out, true, s, Side::t(a), Side::of(b))
    );
}

/// out (ids × cols) = (accumulate ? out : 0) + rows of a table in the number type of `out`. An error names an id beyond it.
pub(crate) fn gather(table: &Tensor, ids: &[u32], out: &mut Tensor, accumulate: bool) -> Result<()> {
    let cols = table.cols();
    typed!(table, T, embedding::gather::<T>(table.as_slice(), cols, ids, out.as_mut_slice(), accumulate), gpu: {
        embedding::check(ids, table.rows()).map(|()| cuda::rows::gather(table, ids, out, accumulate))
    })?;
    Ok(())
}

/// Adds the rows of dx (ids × cols) to the rows of a table that were looked up with [`gather`].
pub(crate) fn scatter_add(dx: &Tensor, ids: &[u32], table: &mut Tensor) -> Result<()> {
    let cols = table.cols();
    typed!(dx, T, embedding::scatter_add::<T>(dx.as_slice(), ids, table.as_mut_slice(), cols), gpu: {
        cuda::rows::scatter_add(dx, ids, table);
        Ok(())
    })?;
    Ok(())
}

/// The mean of the rows of each sequence: x (tokens, cols) → (sequences, cols).
pub(crate) fn mean_rows(x: &Tensor, lengths: &[usize]) -> Tensor {
    let mut y = Tensor::scratch(x.compute(), lengths.len(), x.cols());
    let cols = x.cols();
    typed!(
        x, T, pooling::mean_rows::<T>(x.as_slice(), lengths, y.as_mut_slice(), cols),
        gpu: cuda::rows::mean_rows(x, lengths, &mut y)
    );
    y
}

/// Gradient of [`mean_rows`]: dy (sequences, cols) → (tokens, cols).
pub(crate) fn mean_rows_backward(dy: &Tensor, lengths: &[usize]) -> Tensor {
    let mut dx = Tensor::scratch(dy.compute(), lengths.iter().sum(), dy.cols());
    let cols = dy.cols();
    typed!(
        dy, T, pooling::mean_rows_backward::<T>(dy.as_slice(), lengths, dx.as_mut_slice(), cols),
        gpu: cuda::rows::mean_rows_backward(dy, lengths, &mut dx)
    );
    dx
}

impl Tensor {
    /// A matrix of the given rows of this one.
    pub(crate) fn gather_rows(&self, index: &[usize]) -> Tensor {
        let mut out = Tensor::scratch(self.compute(), index.len(), self.cols());
        let cols = self.cols();
        typed!(self, T, {
            let (src, dst) = (self.as_slice::<T>(), out.as_mut_slice::<T>());
            for (d, &i) in dst.chunks_exact_mut(cols.max(1)).zip(index) {
                d.copy_from_slice(&src[i * cols..][..cols]);
            }
        }, gpu: cuda::rows::gather(self, &numbers(index), &mut out, false));
        out
    }

    /// Adds the rows of `from` to the given rows of this one, which are different.
    pub(crate) fn add_rows(&mut self, index: &[usize], from: &Tensor) {
        let cols = self.cols();
        typed!(self, T, {
            let src = from.as_slice::<T>();
            let dst = self.as_mut_slice::<T>();
            for (s, &i) in src.chunks_exact(cols.max(1)).zip(index) {
                for (d, &s) in dst[i * cols..][..cols].iter_mut().zip(s) {
                    *d += s;
                }
            }
        }, gpu: cuda::rows::add_rows(self, &numbers(index), from));
    }

    /// A matrix of the given columns of this one.
    pub fn gather_columns(&self, index: &[u32]) -> Tensor {
        let mut out = Tensor::scratch(self.compute(), self.rows(), index.len());
        let (cols, k) = (self.cols().max(1), index.len().max(1));
        typed!(self, T, {
            for (from, to) in self.as_slice::<T>().chunks_exact(cols).zip(out.as_mut_slice::<T>().chunks_exact_mut(k)) {
                to.iter_mut().zip(index).for_each(|(x, &i)| *x = from[i as usize]);
            }
        }, gpu: cuda::rows::gather_columns(self, index, &mut out));
        out
    }

    /// Adds the columns of `from` to the given columns of this one, which are different.
    pub fn add_columns(&mut self, index: &[u32], from: &Tensor) {
        let (cols, k) = (self.cols().max(1), index.len().max(1));
        typed!(self, T, {
            for (from, to) in from.as_slice::<T>().chunks_exact(k).zip(self.as_mut_slice::<T>().chunks_exact_mut(cols)) {
                from.iter().zip(index).for_each(|(x, &i)| to[i as usize] += *x);
            }
        }, gpu: cuda::rows::add_columns(self, index, from));
    }

    /// Every element times `factor`.
    pub(crate) fn scale(&mut self, factor: f64) {
        typed!(self, T, {
            let factor = T::from_f64(factor);
            self.as_mut_slice::<T>().iter_mut().for_each(|x| *x *= factor);
        }, gpu: cuda::ops::scale(self, factor));
    }
}

/// Row numbers as kernels read them.
#[cfg(gpu)]
fn numbers(index: &[usize]) -> Vec<u32> {
    index.iter().map(|&i| i as u32).collect()
}
