//! Operations on tensors: each picks the kernel for the number type (and, some day, the device) of its operands.

use crate::kernels::activation::{self, Act};
use crate::kernels::attention::{self, AttnShape};
use crate::kernels::{norm, rope};
use crate::linear::Vector;
use crate::param::Params;
use crate::tensor::{Tensor, typed};

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
        let mut rstd = Tensor::scratch(x.compute(), 1, rows);
        let w = self.weight.get(params);
        let Some(b) = &self.bias else {
            typed!(x, T, {
                let (y, rstd) = (y.as_mut_slice::<T>(), rstd.as_mut_slice());
                norm::rms_norm::<T>(x.as_slice(), w.as_slice(), self.eps, y, rstd, rows, cols);
            });
            return (y, NormSaved { rstd, mean: None });
        };
        let mut mean = Tensor::scratch(x.compute(), 1, rows);
        typed!(x, T, {
            let (w, b) = (w.as_slice::<T>(), b.get(params).as_slice());
            let (y, mean, rstd) = (y.as_mut_slice::<T>(), mean.as_mut_slice(), rstd.as_mut_slice());
            norm::layer_norm(x.as_slice(), w, b, self.eps, y, mean, rstd, rows, cols);
        });
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
        let mut dw = id.map(|_| Tensor::zeros(x.compute(), 1, cols));
        let mut db = id.filter(|_| self.bias.is_some()).map(|_| Tensor::zeros(x.compute(), 1, cols));
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
    typed!(x, T, crate::kernels::elementwise::add_assign::<T>(y.as_mut_slice(), x.as_slice()));
}

/// act(x).
pub(crate) fn act(act: Act, x: &Tensor) -> Tensor {
    let mut y = Tensor::scratch(x.compute(), x.rows(), x.cols());
    typed!(x, T, activation::act_forward::<T>(act, x.as_slice(), y.as_mut_slice()));
    y
}

/// g ← g·act′(x).
pub(crate) fn act_backward(act: Act, x: &Tensor, g: &mut Tensor) {
    typed!(x, T, activation::act_backward_inplace::<T>(act, x.as_slice(), g.as_mut_slice()));
}

/// act(gate)·up.
pub(crate) fn gated(act: Act, gate: &Tensor, up: &Tensor) -> Tensor {
    let mut y = Tensor::scratch(gate.compute(), gate.rows(), gate.cols());
    typed!(gate, T, activation::gated_forward::<T>(act, gate.as_slice(), up.as_slice(), y.as_mut_slice()));
    y
}

/// Gradient of [`gated`] in place: gate becomes dgate, up becomes dup.
pub(crate) fn gated_backward(act: Act, gate: &mut Tensor, up: &mut Tensor, dy: &Tensor) {
    typed!(dy, T, {
        activation::gated_backward_inplace::<T>(act, gate.as_mut_slice(), up.as_mut_slice(), dy.as_slice());
    });
}

/// Attention within documents of the given lengths: q (t, heads·d), k and v (t, kv_heads·d) → output (t, heads·d) and
/// the logarithm of the softmax's denominator (t, heads).
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[usize], shape: &AttnShape) -> (Tensor, Tensor) {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    let mut lse = Tensor::scratch(q.compute(), q.rows(), shape.heads);
    typed!(q, T, {
        let (o, lse) = (o.as_mut_slice::<T>(), lse.as_mut_slice());
        attention::attention(q.as_slice(), k.as_slice(), v.as_slice(), o, lse, lengths, shape);
    });
    (o, lse)
}

/// Gradients of [`attention`]: (dq, dk, dv). `qkv` are its inputs, `out` its outputs.
pub(crate) fn attention_backward(
    qkv: [&Tensor; 3],
    out: (&Tensor, &Tensor),
    d_o: &Tensor,
    lengths: &[usize],
    shape: &AttnShape,
) -> [Tensor; 3] {
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
    });
    [dq, dk, dv]
}

/// The last tokens attend to everything in the cache, which ends with themselves: q (n, heads·d) → (n, heads·d).
pub(crate) fn attention_cached(q: &Tensor, k: &Tensor, v: &Tensor, shape: &AttnShape) -> Tensor {
    let mut o = Tensor::scratch(q.compute(), q.rows(), q.cols());
    typed!(q, T, attention::attention_cached::<T>(q.as_slice(), k.as_slice(), v.as_slice(), o.as_mut_slice(), shape));
    o
}

/// Rotary tables in the number type of the model.
#[derive(Debug)]
pub(crate) enum RopeTable {
    F32(rope::RopeTable<f32>),
    F64(rope::RopeTable<f64>),
}

impl RopeTable {
    pub fn new(compute: crate::Compute, params: &rope::RopeParams, len: usize) -> RopeTable {
        match compute {
            crate::Compute::F32 => RopeTable::F32(rope::RopeTable::new(params, len)),
            crate::Compute::F64 => RopeTable::F64(rope::RopeTable::new(params, len)),
        }
    }

    pub fn serves(&self, len: usize) -> bool {
        match self {
            RopeTable::F32(t) => t.serves(len),
            RopeTable::F64(t) => t.serves(len),
        }
    }

    /// Rotates rows `rows` of x in place (or applies the transposed map), heads of width `d`.
    pub fn apply(&self, x: &mut Tensor, rows: std::ops::Range<usize>, positions: &[u32], d: usize, backward: bool) {
        let cols = x.cols();
        let at = rows.start * cols..rows.end * cols;
        let rotated = match self {
            RopeTable::F32(t) if backward => rope::rope_backward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F32(t) => rope::rope_forward(&mut x.f32s_mut()[at], positions, cols / d, d, t),
            RopeTable::F64(t) if backward => rope::rope_backward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
            RopeTable::F64(t) => rope::rope_forward(&mut x.as_mut_slice()[at], positions, cols / d, d, t),
        };
        rotated.expect("the table was chosen for these positions");
    }
}
