//! Operations of mixtures of experts on tensors.

#[cfg(gpu)]
use crate::cuda;
#[cfg(gpu)]
use crate::cuda::product::{Side, product};
use crate::kernels::activation::Act;
use crate::kernels::clamped::{self, Clamped};
use crate::kernels::par::{Rows, RowsMut, for_rows};
use crate::kernels::simd::{dot, simd};
use crate::ops;
use crate::tensor::{Tensor, typed};

/// How the outputs of the first two layers of a gated MLP are joined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Join {
    /// act(gate)·up.
    Act(Act),
    /// The clamped gate of gpt-oss.
    Clamped(Clamped),
}

impl Join {
    /// The input of the last layer.
    pub fn forward(self, gate: &Tensor, up: &Tensor) -> Tensor {
        let how = match self {
            Join::Act(act) => return ops::gated(act, gate, up),
            Join::Clamped(how) => how,
        };
        let mut y = Tensor::scratch(gate.compute(), gate.rows(), gate.cols());
        typed!(
            gate, T, clamped::clamped_forward::<T>(how, gate.as_slice(), up.as_slice(), y.as_mut_slice()),
            gpu: cuda::mixture::clamped(how, gate, up, &mut y)
        );
        y
    }

    /// Gradient of [`Self::forward`] in place: gate becomes dgate, up becomes dup.
    pub fn backward(self, gate: &mut Tensor, up: &mut Tensor, mut dy: Tensor) {
        let how = match self {
            Join::Act(act) => {
                ops::gated_backward(act, gate, up, dy);
                return;
            }
            Join::Clamped(how) => how,
        };
        typed!(dy, T, {
            let (gate, up) = (gate.as_mut_slice::<T>(), up.as_mut_slice());
            clamped::clamped_backward_inplace(how, gate, up, dy.as_mut_slice());
        }, gpu: cuda::mixture::clamped_backward(how, gate, up, &mut dy));
    }
}

/// Every row of x times its factor.
pub(crate) fn scale_rows(x: &mut Tensor, factors: &[f64]) {
    let (rows, cols) = (x.rows(), x.cols());
    assert_eq!(factors.len(), rows, "factors of {rows} rows");
    typed!(x, T, for_rows(RowsMut(x.as_mut_slice::<T>(), cols), rows, cols, |x, range| {
        for (row, &factor) in x.0.chunks_exact_mut(cols.max(1)).zip(&factors[range]) {
            let factor = T::from_f64(factor);
            row.iter_mut().for_each(|x| *x *= factor);
        }
    }), gpu: cuda::mixture::scale_rows(x, factors));
}

/// The products of the rows of a with those of b, or with its only row.
pub(crate) fn row_dots(a: &Tensor, b: &Tensor) -> Vec<f64> {
    let (rows, cols) = (a.rows(), a.cols());
    assert!(b.cols() == cols && (b.rows() == rows || b.rows() == 1), "rows of another width");
    let mut out = Tensor::scratch(a.compute().exact(), rows, 1);
    typed!(a, T, {
        let (one, b) = (b.rows() == 1, b.as_slice::<T>());
        let parts = (Rows(a.as_slice::<T>(), cols), RowsMut(out.as_mut_slice::<T>(), 1));
        for_rows(parts, rows, cols, |(a, out), range| simd(
            #[inline(always)]
            || {
                for ((out, a), i) in out.0.iter_mut().zip(a.0.chunks_exact(cols.max(1))).zip(range.clone()) {
                    *out = dot(a, &b[if one { 0 } else { i * cols }..][..cols]);
                }
            },
        ));
    }, gpu: match b.rows() == 1 {
        true => product(&mut out, false, 1.0, Side::of(a), Side::t(b)),
        false => cuda::mixture::row_dots(a, b, &mut out),
    });
    out.to_f64_vec()
}

/// A matrix of these row-major values.
pub(crate) fn of_f64(compute: crate::compute::Compute, rows: usize, cols: usize, values: &[f64]) -> Tensor {
    let mut out = Tensor::scratch(compute, rows, cols);
    typed!(
        out, T, out.as_mut_slice::<T>().iter_mut().zip(values).for_each(|(o, &x)| *o = T::from_f64(x)),
        gpu: out.copy_from_f32(&values.iter().map(|&x| x as f32).collect::<Vec<_>>())
    );
    out
}
