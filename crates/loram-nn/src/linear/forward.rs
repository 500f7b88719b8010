//! The forward pass of linear layers.

#[cfg(gpu)]
use super::group;
use super::layer::{Linear, LinearSaved};
use crate::compute::Compute;
#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::kernels::gemm::{Term, gemm_sum};
use crate::ops;
use crate::param::{Params, Trainable};
use crate::products::{Low, Operand, times_t};
use crate::tensor::{Tensor, typed};

impl Linear {
    /// x (t, m) → (t, n).
    pub fn forward(&self, params: &Params, x: &Operand<'_>, step: Option<u64>) -> (Tensor, LinearSaved) {
        self.forward_onto(params, x, None, step)
    }

    /// Returns `base` + layer(x), or layer(x) alone, (t, n). `step` seeds the dropout of a training step; `None`: no dropout.
    pub fn forward_onto(
        &self,
        params: &Params,
        x: &Operand<'_>,
        base: Option<&Tensor>,
        step: Option<u64>,
    ) -> (Tensor, LinearSaved) {
        let [out] = forward_onto([(self, base)], params, x, step);
        out
    }

    /// y (t, n) = (accumulate ? y : 0) + x·Wᵀ and the products of the adapter. Returns dropout(x)·Aᵀ.
    fn products(
        &self,
        params: &Params,
        operand: &Operand<'_>,
        y: &mut Tensor,
        accumulate: bool,
        step: Option<u64>,
    ) -> Option<Tensor> {
        let x = operand.tensor();
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
            product(y, accumulate, 1.0, Side::of(x), Side::t(&self.gpu_weight(params, x)).columns(self.m));
            for (h, b, s) in [&h, &initial].into_iter().flatten() {
                product(y, true, *s, Side::of(h), Side::t(b));
            }
        });
        h.map(|h| h.0)
    }

    /// Adds to y (t, n) what single trained rows and biases add.
    fn add_rest(&self, params: &Params, x: &Tensor, y: &mut Tensor) {
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
    }
}

/// Columns that the input of layers should have to spare on a GPU, where their adapters take room beside it: 0 for none.
pub(crate) fn room(linears: &[&Linear], params: &Params, compute: Compute, step: Option<u64>) -> usize {
    #[cfg(gpu)]
    return group::room(linears, params, compute, step);
    #[cfg(not(gpu))]
    {
        let _ = (linears, params, compute, step);
        0
    }
}

/// Layers with one input: x (t, m) → (t, n) each. x may be wider by the columns of [`room`], which are overwritten.
pub(crate) fn forward_all<const N: usize>(
    linears: [&Linear; N],
    params: &Params,
    x: &Operand<'_>,
    step: Option<u64>,
) -> [(Tensor, LinearSaved); N] {
    forward_onto(linears.map(|linear| (linear, None)), params, x, step)
}

/// [`forward_all`], each output onto a base where it has one.
fn forward_onto<const N: usize>(
    linears: [(&Linear, Option<&Tensor>); N],
    params: &Params,
    operand: &Operand<'_>,
    step: Option<u64>,
) -> [(Tensor, LinearSaved); N] {
    let x = operand.tensor();
    #[cfg(gpu)]
    let mut projected = group::project(&linears.map(|(linear, _)| linear), params, x, step).into_iter();
    linears.map(|(linear, base)| {
        if let Some(watch) = params.watch.as_ref().filter(|_| operand.is_watched()) {
            watch.input(&linear.path, x);
        }
        let new = || Tensor::scratch(x.compute(), x.rows(), linear.n);
        #[cfg(gpu)]
        if x.cols() > linear.m {
            let columns = projected.next().flatten();
            let w = linear.gpu_weight(params, x);
            group::place(columns.as_ref(), linear, params, &w);
            let mut y = new();
            product(&mut y, false, 1.0, Side::of(x), Side::t(&w));
            linear.add_rest(params, x, &mut y);
            return (y, LinearSaved { h: None, columns });
        }
        #[cfg(gpu)]
        if let Some(columns) = projected.next().flatten() {
            let mut y = new();
            columns.multiply(linear, params, base, &mut y);
            let w = linear.gpu_weight(params, x);
            product(&mut y, true, 1.0, Side::of(x), Side::t(&w).columns(linear.m));
            linear.add_rest(params, x, &mut y);
            return (y, LinearSaved { h: None, columns: Some(columns) });
        }
        let mut y = base.map_or_else(new, Tensor::copy);
        let h = linear.products(params, operand, &mut y, base.is_some(), step);
        linear.add_rest(params, x, &mut y);
        let saved = LinearSaved {
            h,
            #[cfg(gpu)]
            columns: None,
        };
        (y, saved)
    })
}
