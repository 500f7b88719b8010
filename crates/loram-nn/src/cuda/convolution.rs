//! Short convolutions on tensors of the GPU.

use super::call::{Address, Grid};
use super::launch::launch;
use super::memory::Buffer;
use super::ops::named;
use crate::tensor::Tensor;

/// Factors (length, width) and bias of a convolution, in f32.
type Kernel<'a> = (&'a Tensor, Option<&'a Tensor>);

/// u = b ⊙ x.
pub(crate) fn gate_input(bcx: &Tensor, u: &mut Tensor) {
    let n = u.len();
    launch!(named("gate_input", bcx), Grid::elements(n); bcx.address(), u.address(), u.cols() as i32, n as i64);
}

/// y = c ⊙ conv(u) for the last rows of u; a position for each of them.
pub(crate) fn forward([bcx, u]: [&Tensor; 2], (factors, bias): Kernel<'_>, positions: &Buffer, y: &mut Tensor) {
    let (n, first, bias) = (y.len(), u.rows() - y.rows(), bias.map_or(Address::NULL, Tensor::address));
    launch!(
        named("short_convolution", bcx), Grid::elements(n);
        bcx.address(), u.address(), factors.address(), bias, positions.address(), y.address(), first as i32,
        factors.cols() as i32, factors.rows() as i32, n as i64
    );
}

/// The gradient of bcx over whole sequences.
pub(crate) fn backward([bcx, u, dy]: [&Tensor; 3], (factors, bias): Kernel<'_>, positions: &Buffer, out: &mut Tensor) {
    let (n, bias) = (u.len(), bias.map_or(Address::NULL, Tensor::address));
    launch!(
        named("short_convolution_backward", bcx), Grid::elements(n);
        bcx.address(), u.address(), factors.address(), bias, positions.address(), dy.address(), out.address(),
        factors.cols() as i32, factors.rows() as i32, u.rows() as i32, n as i64
    );
}
