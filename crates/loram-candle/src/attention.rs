//! Tiled attention over documents that lie one after another (2205.14135).

use crate::{by_dtype, read, same_dtype, slice};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, WithDType, bail};
use loram_nn::kernels::Real;
use loram_nn::kernels::attention::{self as kernel, AttnShape};

struct Attention {
    lengths: Vec<usize>,
    shape: AttnShape,
}

/// softmax(scale·q·kᵀ)·v within documents of the given lengths. q: (tokens, heads·d), k and v: (tokens, kv_heads·d) →
/// (tokens, heads·d). No length × length matrix is made, in either direction.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, lengths: &[usize], shape: AttnShape) -> Result<Tensor> {
    same_dtype("attention", &[q, k, v])?;
    let t: usize = lengths.iter().sum();
    if q.dims() != [t, shape.q_width()] || k.dims() != [t, shape.kv_width()] || v.dims() != k.dims() {
        bail!("attention: {t} tokens, but shapes {:?}, {:?}, {:?}", q.dims(), k.dims(), v.dims());
    }
    let op = Attention { lengths: lengths.to_vec(), shape };
    q.contiguous()?.apply_op3(&k.contiguous()?, &v.contiguous()?, op)
}

impl Attention {
    /// Output and softmax statistics.
    fn run<T: Real>(&self, q: &[T], k: &[T], v: &[T]) -> (Vec<T>, Vec<T>) {
        let tokens: usize = self.lengths.iter().sum();
        let (mut o, mut lse) = (vec![T::ZERO; q.len()], vec![T::ZERO; tokens * self.shape.heads]);
        kernel::attention(q, k, v, &mut o, &mut lse, &self.lengths, &self.shape);
        (o, lse)
    }
}

type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for Attention {
    fn name(&self) -> &'static str {
        "loram-attention"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let out = by_dtype!(s1.dtype(), T, {
            T::to_cpu_storage_owned(self.run::<T>(slice(s1, l1)?, slice(s2, l2)?, slice(s3, l3)?).0)
        });
        Ok((out, l1.shape().clone()))
    }

    fn bwd(&self, q: &Tensor, k: &Tensor, v: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Three> {
        by_dtype!(q.dtype(), T, {
            let [dq, dk, dv] = read::<T, 4, _>([q, k, v, grad], |[qs, ks, vs, g]| {
                let (o, lse) = self.run(qs, ks, vs);
                let [mut dq, mut dk, mut dv] = [qs, ks, vs].map(|x| vec![T::ZERO; x.len()]);
                let (lengths, shape) = (&self.lengths, &self.shape);
                kernel::attention_backward(qs, ks, vs, &o, &lse, g, &mut dq, &mut dk, &mut dv, lengths, shape);
                Ok([dq, dk, dv])
            })?;
            let tensor = |d, like: &Tensor| Tensor::from_vec(d, like.shape(), like.device());
            Ok((Some(tensor(dq, q)?), Some(tensor(dk, k)?), Some(tensor(dv, v)?)))
        })
    }
}
