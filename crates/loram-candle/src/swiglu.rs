//! Gated activation of Llama's MLP (2002.05202).

use crate::{by_dtype, read, same_dtype, slice};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, WithDType, bail};
use loram_nn::kernels::Real;
use loram_nn::kernels::activation;

struct Swiglu;

/// silu(gate)·up, of equal shapes.
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    same_dtype("swiglu", &[gate, up])?;
    if gate.dims() != up.dims() {
        bail!("swiglu: shapes {:?} and {:?} differ", gate.dims(), up.dims());
    }
    gate.contiguous()?.apply_op2(&up.contiguous()?, Swiglu)
}

impl CustomOp2 for Swiglu {
    fn name(&self) -> &'static str {
        "loram-swiglu"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_dtype!(s1.dtype(), T, {
            let (gate, up) = (slice::<T>(s1, l1)?, slice::<T>(s2, l2)?);
            let mut y = vec![T::ZERO; gate.len()];
            activation::swiglu(gate, up, &mut y);
            T::to_cpu_storage_owned(y)
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(&self, gate: &Tensor, up: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(gate.dtype(), T, {
            let (dg, du) = read::<T, 3, _>([gate, up, grad], |[g, u, d]| {
                let (mut dg, mut du) = (vec![T::ZERO; g.len()], vec![T::ZERO; g.len()]);
                activation::swiglu_backward(g, u, d, &mut dg, &mut du);
                Ok((dg, du))
            })?;
            let tensor = |v| Tensor::from_vec(v, gate.shape(), gate.device());
            Ok((Some(tensor(dg)?), Some(tensor(du)?)))
        })
    }
}
