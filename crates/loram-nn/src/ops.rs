//! Operations on tensors: each picks the kernel for the number type and the place of its operands.

#[cfg(gpu)]
use crate::cuda;
use crate::cuda::on_gpu;
use crate::kernels::activation::{self, Act};
use crate::kernels::attention::{self, AttnShape};
use crate::kernels::{elementwise, norm, rope};
use crate::linear::Vector;
use crate::param::Params;
use crate::tensor::{Compute, Tensor, typed};
use std::ops::Range;

/// RMS norm (no bias, 1910.07467) or layer norm (1607.06450) over the columns.
#[derive(Debug)]
pub(crate) struct Norm {
    pub path: String,
    pub weight: Vector,
    pub bias: Option<Vector>,
    pub eps: f64,
}

/// Per row: 1/σ, and the mean for layer norm.
#[derive(Debug)]
pub(crate) struct NormSaved {
    rstd: Tensor,
    mean: Option<Tensor>,
}

impl Norm {
    pub fn trains(&self) -> bool {
        self.weight.param().is_some()
    }

    /// x (t, d) → (t, d).
    pub fn forward(&self, params: &Params, x: &Tensor) -> (Tensor, NormSaved) {
        let (rows, cols) = (x.rows(), x.cols());
        let mut y = Tensor::scratch(x.compute(), rows, cols);
        let mut rstd = Tensor::scratch(x.compute().exact(), 1, rows);
        let w = self.weight.get(params);
        let Some(b) = &self.bias else {
            typed!(x, T, {
                let (y, rstd) = (y.as_mut_slice::<T>(), rstd.as_mut_slice());
                norm::rms_norm::<T>(x.as_slice(), w.as_slice(), self.eps, y, rstd, rows, cols);
            }, gpu: cuda::ops::rms_norm(x, w, self.eps, &mut y, &mut rstd));
            return (y, NormSaved { rstd, mean: None });
        };
        let mut mean = Tensor::scratch(x.compute().exact(), 1, rows);
        typed!(x, T, {
            let (w, b) = (w.as_slice::<T>(), b.get(params).as_slice());
            let (y, mean, rstd) = (y.as_mut_slice::<T>(), mean.as_mut_slice(), rstd.as_mut_slice());
            norm::layer_norm(x.as_slice(), w, b, self.eps, y, mean, rstd, rows, cols);
        }, gpu: cuda::ops::layer_norm(x, w, b.get(params), self.eps, &mut y, &mut mean, &mut rstd));
        (y, NormSaved { rstd, mean: Some(mean) })
    }

    /// dx = (accumulate ? dx : 0) + gradient; adds to the gradients of weight and bias when they are trained.
    pub fn backward(
        &self,
        params: &mut Params,
        x: &Tensor,
        saved: &NormSaved,
        dy: &Tensor,
        dx: &mut Tensor,
        accumulate: bool,
    ) {
        let (rows, cols) = (x.rows(), x.cols());
        let id = self.weight.param();
        // the weight's gradient goes through a row of its own: values and gradients live in one list
        let zeros = |_| Tensor::zeros(x.compute().exact(), 1, cols);
        let mut dw = id.map(zeros);
        let mut db = id.filter(|_| self.bias.is_some()).map(zeros);
        let w = self.weight.get(params);
        typed!(x, T, {
            let dw = dw.as_mut().map(|t| t.as_mut_slice::<T>());
            let (x, dy) = (x.as_slice::<T>(), dy.as_slice());
            let (dx, rstd) = (dx.as_mut_slice(), saved.rstd.as_slice());
            match &saved.mean {
                None => norm::rms_norm_backward(x, w.as_slice(), rstd, dy, dx, accumulate, dw, rows, cols),
                Some(mean) => {
                    let both = dw.zip(db.as_mut().map(|t| t.as_mut_slice::<T>()));
                    let mean = mean.as_slice();
                    norm::layer_norm_backward(x, w.as_slice(), mean, rstd, dy, dx, accumulate, both, rows, cols);
                }
            }
        }, gpu: {
            let mean = saved.mean.as_ref();
            cuda::ops::norm_backward(x, w, mean, &saved.rstd, dy, dx, accumulate);
            if let Some(dw) = &dw {
                cuda::ops::column_sums(dy, db.as_ref(), Some((x, mean, &saved.rstd)), Some(dw));
            }
        });
        for (id, grad) in [(id, dw), (self.bias.as_ref().and_then(|b| b.param()), db)] {
            if let (Some(id), Some(grad)) = (id, grad) {
                add_assign(params.grad_mut(id), &grad);
            }
        }
    }
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

/// Gradient of [`gated`] in place: gate becomes dgate, up becomes dup.
pub(crate) fn gated_backward(act: Act, gate: &mut Tensor, up: &mut Tensor, dy: &Tensor) {
    typed!(dy, T, {
        activation::gated_backward_inplace::<T>(act, gate.as_mut_slice(), up.as_mut_slice(), dy.as_slice());
    }, gpu: cuda::ops::gated_backward(act, gate, up, dy));
}

/// The documents of a pass, one after another.
pub(crate) struct Sequences<'a> {
    /// Tokens of each.
    pub lengths: &'a [usize],
    /// Position of every token in its document.
    pub positions: &'a [u32],
    #[cfg(gpu)]
    layout: cuda::Layout,
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

/// Attention within documents: q (t, heads·d), k and v (t, kv_heads·d) → output (t, heads·d) and
/// the logarithm of the softmax's denominator (t, heads).
pub(crate) fn attention(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    documents: &Sequences<'_>,
    shape: &AttnShape,
) -> (Tensor, Tensor) {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    let mut lse = Tensor::scratch(q.compute().exact(), q.rows(), shape.heads);
    let lengths = documents.lengths;
    typed!(q, T, {
        let (o, lse) = (o.as_mut_slice::<T>(), lse.as_mut_slice());
        attention::attention(q.as_slice(), k.as_slice(), v.as_slice(), o, lse, lengths, shape);
    }, gpu: cuda::attention::attention([q, k, v], &mut o, &mut lse, lengths, &documents.layout, shape));
    (o, lse)
}

/// Gradients of [`attention`]: (dq, dk, dv). `qkv` are its inputs, `out` its outputs.
pub(crate) fn attention_backward(
    qkv: [&Tensor; 3],
    out: (&Tensor, &Tensor),
    d_o: &Tensor,
    documents: &Sequences<'_>,
    shape: &AttnShape,
) -> [Tensor; 3] {
    let lengths = documents.lengths;
    let [mut dq, mut dk, mut dv] = qkv.map(|t| Tensor::scratch(t.compute(), t.rows(), t.cols()));
    let [q, k, v] = qkv;
    typed!(q, T, {
        attention::attention_backward::<T>(
            q.as_slice(),
            k.as_slice(),
            v.as_slice(),
            out.0.as_slice(),
            out.1.as_slice(),
            d_o.as_slice(),
            dq.as_mut_slice(),
            dk.as_mut_slice(),
            dv.as_mut_slice(),
            lengths,
            shape,
        );
    }, gpu: {
        let gradients = [&mut dq, &mut dk, &mut dv];
        cuda::attention::attention_backward(qkv, out, d_o, gradients, lengths, &documents.layout, shape);
    });
    [dq, dk, dv]
}

/// The last tokens attend to everything in the cache, which ends with themselves: q (n, heads·d) → (n, heads·d).
pub(crate) fn attention_cached(q: &Tensor, k: &Tensor, v: &Tensor, shape: &AttnShape) -> Tensor {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    typed!(
        q, T, attention::attention_cached::<T>(q.as_slice(), k.as_slice(), v.as_slice(), o.as_mut_slice(), shape),
        gpu: cuda::attention::attention_cached([q, k, v], &mut o, shape)
    );
    o
}

/// Rotary tables in the number type of the model.
#[derive(Debug)]
pub(crate) enum RopeTable {
    F32(rope::RopeTable<f32>),
    F64(rope::RopeTable<f64>),
    /// With cos and sin, (positions, half), on the GPU.
    #[cfg(gpu)]
    Cuda(rope::RopeTable<f32>, [Tensor; 2]),
}

impl RopeTable {
    pub fn new(compute: Compute, params: &rope::RopeParams, len: usize) -> RopeTable {
        match compute {
            Compute::F32 => RopeTable::F32(rope::RopeTable::new(params, len)),
            Compute::F64 => RopeTable::F64(rope::RopeTable::new(params, len)),
            Compute::CudaF32 | Compute::CudaBf16 => on_gpu!({
                let table = rope::RopeTable::new(params, len);
                let upload = |values| Tensor::from_f32(Compute::CudaF32, len, table.rot_dim / 2, values);
                let both = [upload(&table.cos), upload(&table.sin)];
                RopeTable::Cuda(table, both)
            }),
        }
    }

    pub fn serves(&self, len: usize) -> bool {
        match self {
            RopeTable::F32(t) => t.serves(len),
            RopeTable::F64(t) => t.serves(len),
            #[cfg(gpu)]
            RopeTable::Cuda(t, _) => t.serves(len),
        }
    }

    /// Rotates rows `rows` of x in place (or applies the transposed map), heads of width `d`.
    pub fn apply(&self, x: &mut Tensor, rows: Range<usize>, documents: &Sequences<'_>, d: usize, backward: bool) {
        let cols = x.cols();
        let at = rows.start * cols..rows.end * cols;
        let positions = &documents.positions[rows.clone()];
        let rotated = match self {
            RopeTable::F32(t) if backward => rope::rope_backward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F32(t) => rope::rope_forward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F64(t) if backward => rope::rope_backward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
            RopeTable::F64(t) => rope::rope_forward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
            #[cfg(gpu)]
            RopeTable::Cuda(t, [cos, sin]) => {
                assert!(positions.iter().all(|&p| (p as usize) < t.positions), "positions beyond the table");
                let all = documents.layout.positions.get_or_init(|| cuda::Buffer::of_numbers(documents.positions));
                cuda::ops::rope(x, rows.start, all, rows.len(), d, [cos, sin], backward);
                Ok(())
            }
        };
        rotated.expect("the table was chosen for these positions");
    }
}
