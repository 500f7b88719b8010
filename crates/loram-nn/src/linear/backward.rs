//! The backward pass of linear layers in two halves: what the gradients of the outputs are enough for, then what needs the
//! input, which may have to be computed again.

#[cfg(gpu)]
use super::group;
use super::layer::{Layer, Linear, LinearSaved};
#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::kernels::gemm::{Term, gemm_sum};
use crate::ops;
use crate::param::{Params, Trainable, Vector};
use crate::products::{Low, Operand, add_scaled_t_times, add_t_times, times};
use crate::tensor::{Element, Tensor, typed};

/// The results of the first half of a backward pass that the second half needs.
pub(crate) struct Pending {
    /// scaling·dy·B of each layer, (t, r).
    dh: Vec<Option<Tensor>>,
    /// The same on a GPU, of layers that computed their projections together.
    #[cfg(gpu)]
    group: Option<group::Gradients>,
}

/// The backward pass of layers with one input x (t, m), each given with what it saved and the gradient of its output. Adds to
/// the gradients of their parameters; dx = (accumulate ? dx : 0) + gradient of x where `dx` is `Some((dx, accumulate))`.
pub(crate) fn backward_all<const N: usize>(
    params: &mut Params,
    linears: [(&Linear, LinearSaved, Tensor); N],
    x: &Tensor,
    dx: Option<(&mut Tensor, bool)>,
    step: Option<u64>,
) {
    let operands: Vec<Operand<'_>> = linears.iter().map(|(_, _, dy)| Operand::new(dy)).collect();
    let layers: Vec<Layer<'_>> =
        linears.iter().zip(&operands).map(|((linear, saved, _), gradient)| Layer { linear, saved, gradient }).collect();
    let pending = backward_outputs(params, &layers, dx, step);
    backward_inputs(params, &layers, &Operand::new(x), &pending, step);
}

/// The half that needs no input: gradients of B and of biases, and dx as in [`backward_all`].
pub(crate) fn backward_outputs(
    params: &mut Params,
    layers: &[Layer<'_>],
    mut dx: Option<(&mut Tensor, bool)>,
    step: Option<u64>,
) -> Pending {
    #[cfg(gpu)]
    let group = group::Gradients::new(params, layers);
    #[cfg(gpu)]
    if let (Some(group), Some((dx, accumulate))) = (&group, &mut dx) {
        group.add_input_gradient(params, layers, dx, *accumulate);
        *accumulate = true;
    }
    let mut dh = Vec::with_capacity(layers.len());
    for &Layer { linear, saved, gradient } in layers {
        let target = dx.as_mut().map(|(dx, accumulate)| (&mut **dx, std::mem::replace(accumulate, true)));
        dh.push(linear.backward_output(params, saved, gradient, target, step));
    }
    Pending {
        dh,
        #[cfg(gpu)]
        group,
    }
}

/// The other half: gradients of A, of trained weights and of single trained rows, from the input x (t, m).
pub(crate) fn backward_inputs(
    params: &mut Params,
    layers: &[Layer<'_>],
    x: &Operand<'_>,
    pending: &Pending,
    step: Option<u64>,
) {
    #[cfg(gpu)]
    if let Some(group) = &pending.group {
        group.add_to_parameters(params, layers, x.tensor());
    }
    for (&Layer { linear, gradient, .. }, dh) in layers.iter().zip(&pending.dh) {
        linear.backward_input(params, x, gradient, dh.as_ref(), step);
    }
}

impl Linear {
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
        let layers = [Layer { linear: self, saved, gradient }];
        let pending = backward_outputs(params, &layers, dx, step);
        backward_inputs(params, &layers, input, &pending, step);
    }

    /// Returns scaling·dy·B, unless that is computed for a group.
    fn backward_output(
        &self,
        params: &mut Params,
        saved: &LinearSaved,
        gradient: &Operand<'_>,
        dx: Option<(&mut Tensor, bool)>,
        step: Option<u64>,
    ) -> Option<Tensor> {
        let dy = gradient.tensor();
        let kernel = self.kernel(dy);
        let mut dh = None;
        let mut dh0 = None;
        #[cfg(gpu)]
        let alone = saved.columns.is_none();
        #[cfg(not(gpu))]
        let alone = true;
        if let Some(lora) = &self.lora {
            if alone {
                dh = Some(times(kernel, lora.scaling, gradient, lora.b.operand(params)));
                if let (Some(id), Some(h)) = (lora.b.param(), &saved.h) {
                    add_scaled_t_times(kernel, params.grad_mut(id), lora.scaling, gradient, h);
                }
                dh0 = lora.initial.as_ref().map(|(_, b0)| times(kernel, -lora.scaling, gradient, b0));
            }
            if let Some(id) = lora.bias.as_ref().and_then(Vector::param) {
                let mut sums = Tensor::zeros(dy.compute().exact(), 1, self.n);
                ops::bias_grad(dy, &mut sums);
                sums.scale(lora.scaling);
                ops::add_assign(params.grad_mut(id), &sums);
            }
        }
        if let Some(id) = self.bias.as_ref().and_then(Vector::param) {
            ops::bias_grad(dy, params.grad_mut(id));
        }
        if let Some((dx, accumulate)) = dx {
            typed!(
                dy, T, self.input_gradient::<T>(params, gradient, &dh, &dh0, dx, accumulate, step),
                gpu: self.gpu_input_gradient(params, dy, &dh, &dh0, dx, accumulate, step)
            );
            if let Some(rows) = &self.rows {
                rows.add_input_gradient(params, dy, dx);
            }
        }
        dh
    }

    /// `dh` is what [`Self::backward_output`] returned.
    fn backward_input(
        &self,
        params: &mut Params,
        input: &Operand<'_>,
        gradient: &Operand<'_>,
        dh: Option<&Tensor>,
        step: Option<u64>,
    ) {
        let (x, dy) = (input.tensor(), gradient.tensor());
        if let Some(watch) = &params.watch {
            watch.gradient(&self.path, x, dy);
        }
        if let Some((lora, dh)) = self.lora.as_ref().zip(dh)
            && let Some(id) = lora.a.param()
        {
            let kernel = self.kernel(dy);
            match lora.dropout.of(x, step) {
                Some(dropped) => add_t_times(kernel, params.grad_mut(id), dh, &Operand::new(&dropped)),
                None => add_t_times(kernel, params.grad_mut(id), dh, input),
            }
        }
        if let Trainable::Param(id) = self.weight {
            ops::add_t_times(params.grad_mut(id), 1.0, dy, x);
        }
        if let Some(rows) = &self.rows {
            rows.add_gradient(params, x, dy);
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
        product(dx, accumulate, 1.0, Side::of(dy), Side::of(&self.gpu_weight(params, dy)).columns(self.m));
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
