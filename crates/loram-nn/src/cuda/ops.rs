//! Norms, activations, rotary embedding, dropout, losses and optimiser steps on tensors of the GPU.

use super::call::{Address, Grid};
use super::launch::launch;
use super::memory::Buffer;
use crate::compute::Compute;
use crate::kernels::activation::Act;
use crate::kernels::cross_entropy::LossSum;
use crate::kernels::elementwise::threshold;
use crate::kernels::optim::Sgd;
use crate::tensor::Tensor;

/// The kernel for the number type of a tensor.
pub(crate) fn named(name: &str, like: &Tensor) -> String {
    format!("{name}_{}", if like.compute() == Compute::CudaBf16 { "bf16" } else { "f32" })
}

/// A flag such as `accumulate` as a kernel argument.
pub(super) fn flag(on: bool) -> i32 {
    i32::from(on)
}

fn or_null(t: Option<&Tensor>) -> Address {
    t.map_or(Address::NULL, Tensor::address)
}

/// y, rstd from x (rows, cols); y may be wider.
pub(crate) fn rms_norm(x: &Tensor, w: &Tensor, eps: f64, y: &mut Tensor, rstd: &mut Tensor) {
    let (grid, cols, pitch) = (Grid::rows_of_eights(x.rows(), x.cols()), x.cols() as i32, y.cols() as i32);
    launch!(named("rms_norm", x), grid; x.address(), w.address(), eps as f32, y.address(), pitch, rstd.address(), cols);
}

/// y, mean, rstd from x (rows, cols); y may be wider.
pub(crate) fn layer_norm(
    x: &Tensor,
    w: &Tensor,
    b: &Tensor,
    eps: f64,
    y: &mut Tensor,
    mean: &mut Tensor,
    rstd: &mut Tensor,
) {
    launch!(
        named("layer_norm", x), Grid::rows_of_eights(x.rows(), x.cols());
        x.address(), w.address(), b.address(), eps as f32, y.address(), y.cols() as i32, mean.address(), rstd.address(),
        x.cols() as i32
    );
}

/// dx = (accumulate ? dx : 0) + gradient of a norm; `mean` for layer norm.
pub(crate) fn norm_backward(
    x: &Tensor,
    w: &Tensor,
    mean: Option<&Tensor>,
    rstd: &Tensor,
    dy: &Tensor,
    dx: &mut Tensor,
    accumulate: bool,
) {
    let (grid, cols, accumulate) = (Grid::rows_of_eights(x.rows(), x.cols()), x.cols() as i32, flag(accumulate));
    let (x_at, w_at, rstd, dy, dx) = (x.address(), w.address(), rstd.address(), dy.address(), dx.address());
    match mean {
        None => launch!(named("rms_norm_backward", x), grid; x_at, w_at, rstd, dy, dx, accumulate, cols),
        Some(m) => {
            launch!(named("layer_norm_backward", x), grid; x_at, w_at, m.address(), rstd, dy, dx, accumulate, cols);
        }
    }
}

/// dw += Σ dy·x̂ and db += Σ dy over rows, where asked for; `normed` is (x, mean, rstd).
pub(crate) fn column_sums(
    dy: &Tensor,
    db: Option<&Tensor>,
    normed: Option<(&Tensor, Option<&Tensor>, &Tensor)>,
    dw: Option<&Tensor>,
) {
    let (rows, cols) = (dy.rows(), dy.cols());
    let grid = Grid { blocks: (cols.div_ceil(32), 1), threads: 256, shared: 0 };
    let (x, mean, rstd) = match normed {
        Some((x, mean, rstd)) => (x.address(), or_null(mean), rstd.address()),
        None => (Address::NULL, Address::NULL, Address::NULL),
    };
    launch!(
        named("column_sums", dy), grid;
        dy.address(), or_null(db), x, mean, rstd, or_null(dw), rows as i32, cols as i32
    );
}

fn act_code(act: Act) -> i32 {
    match act {
        Act::Silu => 0,
        Act::Gelu => 1,
        Act::GeluTanh => 2,
        Act::Relu => 3,
        Act::Tanh => 4,
        Act::QuickGelu => 5,
    }
}

pub(crate) fn act(act: Act, x: &Tensor, y: &mut Tensor) {
    let n = x.len();
    launch!(named("act_forward", x), Grid::eights(n); act_code(act), x.address(), y.address(), n as i64);
}

pub(crate) fn act_backward(act: Act, x: &Tensor, g: &mut Tensor) {
    let n = x.len();
    launch!(named("act_backward", x), Grid::eights(n); act_code(act), x.address(), g.address(), n as i64);
}

pub(crate) fn gated(act: Act, gate: &Tensor, up: &Tensor, y: &mut Tensor) {
    let n = gate.len();
    launch!(
        named("gated_forward", gate), Grid::eights(n);
        act_code(act), gate.address(), up.address(), y.address(), n as i64
    );
}

pub(crate) fn gated_backward(act: Act, gate: &mut Tensor, up: &mut Tensor, dy: &mut Tensor) {
    let n = dy.len();
    launch!(
        named("gated_backward", dy), Grid::eights(n);
        act_code(act), gate.address(), up.address(), dy.address(), n as i64
    );
}

pub(crate) fn add_assign(y: &mut Tensor, x: &Tensor) {
    assert_eq!((y.len(), y.compute()), (x.len(), x.compute()), "add_assign");
    launch!(named("add_assign", x), Grid::eights(x.len()); y.address(), x.address(), x.len() as i64);
}

pub(crate) fn scale(y: &mut Tensor, factor: f64) {
    launch!(named("scale", y), Grid::eights(y.len()); y.address(), factor as f32, y.len() as i64);
}

pub(crate) fn add_bias(y: &mut Tensor, bias: &Tensor) {
    let n = y.len();
    launch!(named("add_bias", y), Grid::elements(n); y.address(), bias.address(), y.cols() as i32, n as i64);
}

/// y = (accumulate ? y : 0) + dropout(x), the same elements as on the CPU.
pub(crate) fn dropout(x: &Tensor, y: &mut Tensor, p: f64, seed: u64, accumulate: bool) {
    let n = x.len();
    launch!(
        named("dropout", x), Grid::elements(n);
        x.address(), y.address(), threshold(p), keep(p), seed, flag(accumulate), n as i64
    );
}

/// Factor on what dropout leaves.
pub(super) fn keep(p: f64) -> f32 {
    if p < 1.0 { (1.0 / (1.0 - p)) as f32 } else { 0.0 }
}

/// Rotates rows of x from `row` on in place, a position for each; cos and sin are (positions, half).
#[allow(clippy::too_many_arguments)]
pub(crate) fn rope(
    x: &Tensor,
    row: usize,
    positions: &Buffer,
    rows: usize,
    d: usize,
    table: [&Tensor; 2],
    interleaved: bool,
    backward: bool,
) {
    let (half, heads) = (table[0].cols(), x.cols() / d);
    let (from, at) = (x.buffer().at(row * x.cols()), positions.at(row));
    let [cos, sin] = table.map(Tensor::address);
    launch!(
        named("rope", x), Grid::rows(rows, heads * half.div_ceil(8));
        from, at, cos, sin, heads as i32, d as i32, half as i32, flag(interleaved), flag(backward)
    );
}

/// Losses of rows of logits whose labels all count. What is found stays on the GPU until [`Losses::sum`].
#[derive(Debug, Default)]
pub(crate) struct Losses {
    found: Vec<Tensor>,
}

impl Losses {
    /// With `grad` the logits become their gradients times `scale`.
    pub fn add(&mut self, logits: &mut Tensor, labels: &[u32], scale: f64, grad: bool) {
        self.launch(logits, labels, Address::NULL, scale, grad);
    }

    /// With `scales`, one for each row, the logits become their gradients times these.
    pub fn add_scaled(&mut self, logits: &mut Tensor, labels: &[u32], scales: Option<&[f32]>) {
        let bits = |scales: &[f32]| Buffer::of_numbers(bytemuck::cast_slice(scales));
        let scales = scales.map(bits);
        let address = scales.as_ref().map_or(Address::NULL, Buffer::address);
        self.launch(logits, labels, address, 1.0, scales.is_some());
    }

    fn launch(&mut self, logits: &mut Tensor, labels: &[u32], scales: Address, scale: f64, grad: bool) {
        let found = Tensor::scratch(Compute::CudaF32, labels.len(), 2);
        let ids = Buffer::of_numbers(labels);
        let grid = Grid { blocks: (labels.len(), 1), threads: 512, shared: 0 };
        launch!(
            named("cross_entropy", logits), grid;
            logits.address(), ids.address(), found.address(), scales, scale as f32, flag(grad), logits.cols() as i32
        );
        self.found.push(found);
    }

    /// Waits for the rows so far and returns the loss of each.
    pub fn of_rows(&self) -> Vec<f64> {
        let rows = |found: &Tensor| found.to_f32_vec().chunks_exact(2).map(|row| f64::from(row[0])).collect::<Vec<_>>();
        self.found.iter().flat_map(rows).collect()
    }

    /// Waits for the rows so far.
    pub fn sum(&self) -> LossSum {
        let mut sum = LossSum::default();
        for found in &self.found {
            for row in found.to_f32_vec().chunks_exact(2) {
                sum.loss += f64::from(row[0]);
                sum.counted += 1;
                sum.correct += usize::from(row[1] != 0.0);
            }
        }
        sum
    }
}

pub(crate) fn sgd(p: &mut Tensor, g: &Tensor, buffer: Option<&mut Tensor>, how: &Sgd, step: u64) {
    let n = p.len();
    let buffer = match how.momentum == 0.0 {
        true => None,
        false => Some(buffer.expect("momentum needs a buffer")),
    };
    let (keep, add) = if step == 1 { (0.0, 1.0) } else { (how.momentum, 1.0 - how.dampening) };
    launch!(
        "sgd", Grid::elements(n);
        p.address(), g.address(), or_null(buffer.as_deref()), how.lr as f32, how.weight_decay as f32,
        how.momentum as f32, keep as f32, add as f32, flag(how.nesterov), n as i64
    );
}
