//! RMS norm (1910.07467).

use crate::{by_dtype, read, same_dtype, slice};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, D, Layout, Result, Shape, Tensor, WithDType, bail};
use loram_nn::kernels::Real;
use loram_nn::kernels::norm;

struct RmsNorm {
    eps: f64,
}

/// y = x/√(mean(x²) + eps)·w over the last dimension. x: (…, d), w: (d). Gradients reach both.
pub fn rms_norm(x: &Tensor, w: &Tensor, eps: f64) -> Result<Tensor> {
    same_dtype("rms_norm", &[x, w])?;
    if w.dims() != [x.dim(D::Minus1)?] {
        bail!("rms_norm: a weight of shape {:?} for inputs of shape {:?}", w.dims(), x.dims());
    }
    x.contiguous()?.apply_op2(&w.contiguous()?, RmsNorm { eps })
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "loram-rms-norm"
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_dtype!(s1.dtype(), T, {
            let (x, w) = (slice::<T>(s1, l1)?, slice::<T>(s2, l2)?);
            let (cols, mut y) = (w.len(), vec![T::ZERO; x.len()]);
            let rows = x.len() / cols.max(1);
            norm::rms_norm(x, w, self.eps, &mut y, &mut vec![T::ZERO; rows], rows, cols);
            T::to_cpu_storage_owned(y)
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        by_dtype!(x.dtype(), T, {
            let (dx, dw) = read::<T, 3, _>([x, w, grad], |[xs, ws, g]| {
                let (cols, rows) = (ws.len(), xs.len() / ws.len().max(1));
                let mut rstd = vec![T::ZERO; rows];
                let (mut dx, mut dw) = (vec![T::ZERO; xs.len()], vec![T::ZERO; cols]);
                // the statistics again: cheaper than keeping them in the graph
                norm::rms_norm(xs, ws, self.eps, &mut dx, &mut rstd, rows, cols);
                norm::rms_norm_backward(xs, ws, &rstd, g, &mut dx, false, Some(&mut dw), rows, cols);
                Ok((dx, dw))
            })?;
            Ok((Some(Tensor::from_vec(dx, x.shape(), x.device())?), Some(Tensor::from_vec(dw, w.shape(), w.device())?)))
        })
    }
}
