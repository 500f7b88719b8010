//! Linear layers with their LoRA adapters.

#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::dropout::Dropout;
use crate::kernels::bf16::Kernel;
use crate::kernels::gemm::{Term, gemm_sum};
use crate::ops;
use crate::param::{Params, Trainable, Vector};
use crate::products::{Low, Operand, add_scaled_t_times, add_t_times, times, times_t};
use crate::tensor::{Element, Tensor, typed};
use crate::trained_rows::TrainedRows;
use crate::weight::Weight;

/// y = x·Wᵀ + bias + s·(dropout(x)·Aᵀ·Bᵀ + bias of B) − s·x·A₀ᵀ·B₀ᵀ (2106.09685; the last term subtracts the
/// initial product of 2507.06558 from a base that must not change). W: (n, m).
#[derive(Debug)]
pub(crate) struct Linear {
    pub path: String,
    pub n: usize,
    pub m: usize,
    pub weight: Trainable<Weight>,
    pub bias: Option<Vector>,
    pub lora: Option<Lora>,
    /// Single rows of W that are trained.
    pub rows: Option<TrainedRows>,
}

/// The adapter of a linear layer: factors that are frozen or trained, A (r, m) and B (n, r).
#[derive(Debug)]
pub(crate) struct Lora {
    pub a: Vector,
    pub b: Vector,
    pub scaling: f64,
    /// Of B (`lora_bias`), (1, n).
    pub bias: Option<Vector>,
    /// On the input of A.
    pub dropout: Dropout,
    /// `(A₀, B₀)`: the frozen initial factors, whose product is subtracted.
    pub initial: Option<(Tensor, Tensor)>,
}

impl Lora {
    /// Returns whether anything of it is trained.
    pub fn trains(&self) -> bool {
        [Some(&self.a), Some(&self.b), self.bias.as_ref()].into_iter().flatten().any(|v| v.param().is_some())
    }

    /// The same adapter, for a second layer with the same weight.
    pub fn shared(&self) -> Lora {
        Lora {
            a: self.a.copied(),
            b: self.b.copied(),
            scaling: self.scaling,
            bias: self.bias.as_ref().map(Vector::copied),
            dropout: self.dropout,
            initial: self.initial.as_ref().map(|(a, b)| (a.copy(), b.copy())),
        }
    }
}

/// Activations that the backward pass of a linear layer needs beside its input.
#[derive(Debug, Default)]
pub(crate) struct LinearSaved {
    /// dropout(x)·Aᵀ, (t, r).
    h: Option<Tensor>,
}

impl Linear {
    pub fn frozen(path: String, weight: Weight) -> Linear {
        let (n, m) = (weight.rows(), weight.cols());
        Linear { path, n, m, weight: Trainable::Frozen(weight), bias: None, lora: None, rows: None }
    }

    /// Returns whether any of its own parameters is trained.
    pub fn trains(&self) -> bool {
        let vector = |v: &Vector| v.param().is_some();
        self.weight.param().is_some()
            || self.bias.as_ref().is_some_and(vector)
            || self.lora.as_ref().is_some_and(Lora::trains)
            || self.rows.as_ref().is_some_and(|rows| vector(&rows.value))
    }

    /// x (t, m) → (t, n).
    pub fn forward(&self, params: &Params, x: &Operand<'_>, step: Option<u64>) -> (Tensor, LinearSaved) {
        self.forward_onto(params, x, None, step)
    }

    /// Returns `base` + layer(x), or layer(x) alone, (t, n).
    pub fn forward_onto(
        &self,
        params: &Params,
        x: &Operand<'_>,
        base: Option<&Tensor>,
        step: Option<u64>,
    ) -> (Tensor, LinearSaved) {
        let new = || Tensor::scratch(x.tensor().compute(), x.tensor().rows(), self.n);
        let mut y = base.map_or_else(new, Tensor::copy);
        let saved = self.forward_into(params, x, &mut y, base.is_some(), step);
        (y, saved)
    }

    /// y (t, n) = (accumulate ? y : 0) + layer(x). `step` seeds the dropout of a training step; `None`: no dropout.
    fn forward_into(
        &self,
        params: &Params,
        operand: &Operand<'_>,
        y: &mut Tensor,
        accumulate: bool,
        step: Option<u64>,
    ) -> LinearSaved {
        let x = operand.tensor();
        if let Some(watch) = &params.watch {
            watch.input(&self.path, x);
        }
        let kernel = self.kernel(x);
        let mut h = None;
        let mut initial = None;
        if let Some(lora) = &self.lora {
            let a = lora.a.operand(params);
            let low = match lora.dropout.of(x, step) {
                Some(dropped) => times_t(kernel, &Operand::new(&dropped), a),
                None => times_t(kernel, operand, a),
            };
            h = Some((low, lora.b.operand(params), lora.scaling));
            initial = lora.initial.as_ref().map(|(a0, b0)| (times_t(kernel, operand, a0), b0, -lora.scaling));
        }
        typed!(x, T, {
            let low: Vec<_> = [&h, &initial]
                .into_iter()
                .flatten()
                .map(|(h, b, s)| Low { scale: *s, x: h, w: b, transposed: true })
                .collect();
            match &self.weight {
                Trainable::Frozen(w) => w.product_t::<T>(operand, y, accumulate, &low),
                Trainable::Param(id) => {
                    let w = Term { alpha: T::ONE, a: x.view(), b: params.value(*id).view::<T>().t() };
                    let terms: Vec<_> = std::iter::once(w).chain(low.iter().map(Low::term)).collect();
                    gemm_sum(y.view_mut(), accumulate, &terms);
                }
            }
        }, gpu: {
            product(y, accumulate, 1.0, Side::of(x), Side::t(self.gpu_weight(params, x)));
            for (h, b, s) in [&h, &initial].into_iter().flatten() {
                product(y, true, *s, Side::of(h), Side::t(b));
            }
        });
        if let Some(rows) = &self.rows {
            rows.multiply(params, x, y);
        }
        if let Some(bias) = &self.bias {
            ops::add_bias(y, bias.get(params));
        }
        if let Some((lora, bias)) = self.lora.as_ref().and_then(|l| Some((l, l.bias.as_ref()?))) {
            let mut scaled = bias.get(params).copy();
            scaled.scale(lora.scaling);
            ops::add_bias(y, &scaled);
        }
        LinearSaved { h: h.map(|h| h.0) }
    }

    /// Adds to the gradients of this layer's parameters, and to dx (t, m) where asked:
    /// dx = (accumulate ? dx : 0) + dy·W + …, never forming an n × m matrix unless W itself is trained.
    pub fn backward(
        &self,
        params: &mut Params,
        input: &Operand<'_>,
        saved: &LinearSaved,
        gradient: &Operand<'_>,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) {
        let (x, dy) = (input.tensor(), gradient.tensor());
        if let Some(watch) = &params.watch {
            watch.gradient(&self.path, x, dy);
        }
        let kernel = self.kernel(dy);
        let mut dh = None;
        let mut dh0 = None;
        if let Some(lora) = &self.lora {
            let g = times(kernel, lora.scaling, gradient, lora.b.operand(params));
            if let (Some(id), Some(h)) = (lora.b.param(), &saved.h) {
                add_scaled_t_times(kernel, params.grad_mut(id), lora.scaling, gradient, h);
            }
            if let Some(id) = lora.bias.as_ref().and_then(Vector::param) {
                let mut sums = Tensor::zeros(dy.compute().exact(), 1, self.n);
                ops::bias_grad(dy, &mut sums);
                sums.scale(lora.scaling);
                ops::add_assign(params.grad_mut(id), &sums);
            }
            if let Some(id) = lora.a.param() {
                match lora.dropout.of(x, step) {
                    Some(dropped) => add_t_times(kernel, params.grad_mut(id), &g, &Operand::new(&dropped)),
                    None => add_t_times(kernel, params.grad_mut(id), &g, input),
                }
            }
            dh = Some(g);
            dh0 = lora.initial.as_ref().map(|(_, b0)| times(kernel, -lora.scaling, gradient, b0));
        }
        if let Trainable::Param(id) = self.weight {
            ops::add_t_times(params.grad_mut(id), 1.0, dy, x);
        }
        if let Some(id) = self.bias.as_ref().and_then(Vector::param) {
            ops::bias_grad(dy, params.grad_mut(id));
        }
        let Some((dx, accumulate)) = dx else {
            if let Some(rows) = &self.rows {
                rows.multiply_backward(params, x, dy, None);
            }
            return;
        };
        typed!(
            dy, T, self.input_gradient::<T>(params, gradient, &dh, &dh0, dx, accumulate, step),
            gpu: self.gpu_input_gradient(params, dy, &dh, &dh0, dx, accumulate, step)
        );
        if let Some(rows) = &self.rows {
            rows.multiply_backward(params, x, dy, Some(dx));
        }
    }

    /// W in the GPU's memory, where it is used with activations like `x`.
    #[cfg(gpu)]
    fn gpu_weight<'a>(&'a self, params: &'a Params, x: &Tensor) -> &'a Tensor {
        match &self.weight {
            Trainable::Frozen(w) => w.on_gpu(x),
            Trainable::Param(id) => params.value(*id),
        }
    }

    #[cfg(gpu)]
    #[allow(clippy::too_many_arguments)]
    fn gpu_input_gradient(
        &self,
        params: &Params,
        dy: &Tensor,
        dh: &Option<Tensor>,
        dh0: &Option<Tensor>,
        dx: &mut Tensor,
        accumulate: bool,
        step: Option<u64>,
    ) {
        product(dx, accumulate, 1.0, Side::of(dy), Side::of(self.gpu_weight(params, dy)));
        let (Some(lora), Some(dh)) = (&self.lora, dh) else { return };
        let a = lora.a.operand(params);
        match lora.dropout.is_on(step) {
            false => product(dx, true, 1.0, Side::of(dh), Side::of(a)),
            true => lora.dropout.add(&ops::times(1.0, dh, a), dx, step),
        }
        if let (Some(dh0), Some((a0, _))) = (dh0, &lora.initial) {
            product(dx, true, 1.0, Side::of(dh0), Side::of(a0));
        }
    }

    /// The kernel of products with tensors like `x`, the adapter's included.
    fn kernel(&self, x: &Tensor) -> Option<Kernel> {
        match &self.weight {
            Trainable::Frozen(w) => w.kernel_for(x),
            Trainable::Param(_) => None,
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn input_gradient<T: Element>(
        &self,
        params: &Params,
        dy: &Operand<'_>,
        dh: &Option<Tensor>,
        dh0: &Option<Tensor>,
        dx: &mut Tensor,
        accumulate: bool,
        step: Option<u64>,
    ) {
        let mut low = Vec::new();
        let mut through_dropout = None;
        if let (Some(lora), Some(dh)) = (&self.lora, dh) {
            let a = lora.a.operand(params);
            let plain = |x, w| Low { scale: 1.0, x, w, transposed: false };
            match lora.dropout.is_on(step) {
                false => low.push(plain(dh, a)),
                true => {
                    let d = times(self.kernel(dh), 1.0, &Operand::new(dh), a);
                    through_dropout = Some((d, lora.dropout));
                }
            }
            if let (Some(dh0), Some((a0, _))) = (dh0, &lora.initial) {
                low.push(plain(dh0, a0));
            }
        }
        match &self.weight {
            Trainable::Frozen(w) => w.product::<T>(dy, dx, accumulate, &low),
            Trainable::Param(id) => {
                let w = Term { alpha: T::ONE, a: dy.tensor().view(), b: params.value(*id).view() };
                let terms: Vec<_> = std::iter::once(w).chain(low.iter().map(Low::term)).collect();
                gemm_sum(dx.view_mut(), accumulate, &terms);
            }
        }
        if let Some((d, dropout)) = through_dropout {
            dropout.add(&d, dx, step);
        }
    }
}
