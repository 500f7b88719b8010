//! Operations of mixtures of experts on tensors of the GPU.

use super::call::Grid;
use super::launch::launch;
use super::ops::named;
use crate::compute::Compute;
use crate::kernels::clamped::Clamped;
use crate::tensor::Tensor;

pub(crate) fn clamped(how: Clamped, gate: &Tensor, up: &Tensor, y: &mut Tensor) {
    let n = gate.len();
    launch!(
        named("clamped_forward", gate), Grid::eights(n);
        gate.address(), up.address(), y.address(), how.alpha as f32, how.limit as f32, n as i64
    );
}

/// gate becomes dgate, up becomes dup, dy becomes the output.
pub(crate) fn clamped_backward(how: Clamped, gate: &mut Tensor, up: &mut Tensor, dy: &mut Tensor) {
    let n = dy.len();
    launch!(
        named("clamped_backward", dy), Grid::eights(n);
        gate.address(), up.address(), dy.address(), how.alpha as f32, how.limit as f32, n as i64
    );
}

/// Every row of x times its factor.
pub(crate) fn scale_rows(x: &mut Tensor, factors: &[f64]) {
    let values: Vec<f32> = factors.iter().map(|&x| x as f32).collect();
    let factors = Tensor::from_f32(Compute::CudaF32, values.len(), 1, &values);
    let grid = Grid::rows(x.rows(), x.cols());
    launch!(named("scale_rows", x), grid; x.address(), factors.address(), x.cols() as i32);
}

/// out (rows, 1) in f32: the products of the rows of a with those of b, which has the same type.
pub(crate) fn row_dots(a: &Tensor, b: &Tensor, out: &mut Tensor) {
    assert_eq!((a.len(), a.compute()), (b.len(), b.compute()), "row_dots");
    let grid = Grid::rows(a.rows(), a.cols());
    launch!(named("row_dots", a), grid; a.address(), b.address(), out.address(), a.cols() as i32);
}
