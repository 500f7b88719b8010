//! A frozen linear layer with its adapter as one operation (2106.09685).

use crate::{by_dtype, read, same_dtype, slice};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp3, D, Layout, Result, Shape, Tensor, WithDType, bail};
use loram_nn::kernels::Real;
use loram_nn::kernels::gemm::{Term, View, ViewMut, gemm, gemm_sum};

struct LoraLinear {
    weight: Tensor,
    scaling: f64,
}

/// y = x·Wᵀ + scaling·x·Aᵀ·Bᵀ. x: (…, m), W: (n, m), A: (r, m), B: (n, r) → (…, n). W is frozen: it is no part of the
/// graph, and no gradient of its size is ever made.
pub fn lora_linear(x: &Tensor, weight: &Tensor, a: &Tensor, b: &Tensor, scaling: f64) -> Result<Tensor> {
    same_dtype("lora_linear", &[x, weight, a, b])?;
    let ((n, m), (r, am), (bn, br)) = (weight.dims2()?, a.dims2()?, b.dims2()?);
    if x.dim(D::Minus1)? != m || am != m || bn != n || br != r {
        bail!("lora_linear: x {:?}, W ({n}, {m}), A ({r}, {am}), B ({bn}, {br}) do not fit", x.dims());
    }
    let mut shape = x.dims().to_vec();
    shape.pop();
    shape.push(n);
    let flat = x.contiguous()?.reshape(((), m))?;
    let op = LoraLinear { weight: weight.detach().contiguous()?, scaling };
    flat.apply_op3(&a.contiguous()?, &b.contiguous()?, op)?.reshape(shape)
}

type Three = (Option<Tensor>, Option<Tensor>, Option<Tensor>);

impl CustomOp3 for LoraLinear {
    fn name(&self) -> &'static str {
        "loram-lora-linear"
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
        let ((n, m), r, t) = (self.weight.dims2()?, l2.dims()[0], l1.dims()[0]);
        let out = by_dtype!(s1.dtype(), T, {
            let x = View::new(slice::<T>(s1, l1)?, t, m);
            let (a, b) = (View::new(slice::<T>(s2, l2)?, r, m), View::new(slice::<T>(s3, l3)?, n, r));
            let (mut h, mut y) = (vec![T::ZERO; t * r], vec![T::ZERO; t * n]);
            gemm(ViewMut::new(&mut h, t, r), false, T::ONE, x, a.t());
            read::<T, 1, _>([&self.weight], |[w]| {
                let base = Term { alpha: T::ONE, a: x, b: View::new(w, n, m).t() };
                let low = Term { alpha: Real::from_f64(self.scaling), a: View::new(&h, t, r), b: b.t() };
                gemm_sum(ViewMut::new(&mut y, t, n), false, &[base, low]);
                Ok(())
            })?;
            T::to_cpu_storage_owned(y)
        });
        Ok((out, Shape::from((t, n))))
    }

    fn bwd(&self, x: &Tensor, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Three> {
        let ((n, m), r, t) = (self.weight.dims2()?, a.dims2()?.0, x.dims2()?.0);
        by_dtype!(x.dtype(), T, {
            let [dx, da, db] = read::<T, 5, _>([x, a, b, grad, &self.weight], |[x, a, b, g, w]| {
                let s: T = Real::from_f64(self.scaling);
                let (x, a, b, g) = (View::new(x, t, m), View::new(a, r, m), View::new(b, n, r), View::new(g, t, n));
                let (mut h, mut dh) = (vec![T::ZERO; t * r], vec![T::ZERO; t * r]);
                gemm(ViewMut::new(&mut h, t, r), false, T::ONE, x, a.t());
                gemm(ViewMut::new(&mut dh, t, r), false, s, g, b);
                let (h, dh) = (View::new(&h, t, r), View::new(&dh, t, r));
                let [mut dx, mut da, mut db] = [t * m, r * m, n * r].map(|len| vec![T::ZERO; len]);
                gemm(ViewMut::new(&mut db, n, r), false, s, g.t(), h);
                gemm(ViewMut::new(&mut da, r, m), false, T::ONE, dh.t(), x);
                let base = Term { alpha: T::ONE, a: g, b: View::new(w, n, m) };
                gemm_sum(ViewMut::new(&mut dx, t, m), false, &[base, Term { alpha: T::ONE, a: dh, b: a }]);
                Ok([dx, da, db])
            })?;
            let tensor = |d, like: &Tensor| Tensor::from_vec(d, like.shape(), like.device());
            Ok((Some(tensor(dx, x)?), Some(tensor(da, a)?), Some(tensor(db, b)?)))
        })
    }
}
