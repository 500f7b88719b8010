//! Softmax cross-entropy over logits.

use crate::{by_dtype, read, slice};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, WithDType, bail};
use loram_nn::kernels::Real;
use loram_nn::kernels::cross_entropy::{IGNORE, softmax_cross_entropy};

struct CrossEntropy {
    labels: Vec<i64>,
    counted: usize,
}

/// Mean cross-entropy of logits (tokens, vocabulary) against labels, −100 to leave a token out. A scalar.
pub fn cross_entropy(logits: &Tensor, labels: &[i64]) -> Result<Tensor> {
    if logits.dims2()?.0 != labels.len() {
        bail!("cross_entropy: logits {:?} for {} labels", logits.dims(), labels.len());
    }
    let counted = labels.iter().filter(|&&l| l != IGNORE).count();
    logits.contiguous()?.apply_op1(CrossEntropy { labels: labels.to_vec(), counted })
}

impl CrossEntropy {
    /// Mean loss; the logits become its gradient times `scale`.
    fn run<T: Real>(&self, logits: &mut [T], vocab: usize, scale: T) -> Result<f64> {
        match softmax_cross_entropy(logits, &self.labels, vocab, scale, true) {
            Ok(sum) => Ok(sum.loss / self.counted as f64),
            Err(e) => bail!("cross_entropy: {e}"),
        }
    }
}

impl CustomOp1 for CrossEntropy {
    fn name(&self) -> &'static str {
        "loram-cross-entropy"
    }

    fn cpu_fwd(&self, s: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let out = by_dtype!(s.dtype(), T, {
            let loss = self.run(&mut slice::<T>(s, l)?.to_vec(), l.dims()[1], T::ONE)?;
            T::to_cpu_storage_owned(vec![Real::from_f64(loss)])
        });
        Ok((out, Shape::from(())))
    }

    fn bwd(&self, logits: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        by_dtype!(logits.dtype(), T, {
            let d = read::<T, 2, _>([logits, grad], |[x, g]| {
                let mut d = x.to_vec();
                let counted: T = Real::from_f64(self.counted as f64);
                self.run(&mut d, logits.dims2()?.1, g[0] / counted)?;
                Ok(d)
            })?;
            Ok(Some(Tensor::from_vec(d, logits.shape(), logits.device())?))
        })
    }
}
