//! The fused operations of loram for programs on candle: forward and backward passes in one op each, on the CPU, in f32
//! and f64. Where candle's own composition records five tensors, these record one and keep what is frozen out of the
//! graph.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! # fn main() -> candle_core::Result<()> {
//! let x = Var::randn(0f32, 1.0, (4, 8), &Device::Cpu)?;
//! let w = Tensor::ones(8, candle_core::DType::F32, &Device::Cpu)?;
//! let loss = loram_candle::rms_norm(&x, &w, 1e-6)?.sqr()?.sum_all()?;
//! assert!(loss.backward()?.get(&x).is_some());
//! # Ok(()) }
//! ```

mod attention;
mod cross_entropy;
mod linear;
mod norm;
mod swiglu;

pub use attention::attention;
pub use cross_entropy::cross_entropy;
pub use linear::lora_linear;
pub use loram_nn::kernels::attention::AttnShape;
pub use norm::rms_norm;
pub use swiglu::swiglu;

use candle_core::{CpuStorage, DType, Layout, Result, Storage, Tensor, WithDType, bail};
use loram_nn::kernels::Real;

/// The number types of the kernels.
trait Num: Real + WithDType {}
impl Num for f32 {}
impl Num for f64 {}

/// Runs `$body` with `$T` as the number type of a candle dtype.
macro_rules! by_dtype {
    ($dtype:expr, $T:ident, $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => candle_core::bail!("loram's fused operations work in f32 and f64, found {other:?}"),
        }
    };
}
use by_dtype;

/// The elements of a contiguous operand.
fn slice<'a, T: Num>(s: &'a CpuStorage, l: &Layout) -> Result<&'a [T]> {
    match l.contiguous_offsets() {
        Some((start, end)) => Ok(&s.as_slice::<T>()?[start..end]),
        None => bail!("loram's fused operations need contiguous tensors: call contiguous() first"),
    }
}

/// Calls `f` with the elements of tensors on the CPU.
fn read<T: Num, const N: usize, R>(tensors: [&Tensor; N], f: impl FnOnce([&[T]; N]) -> Result<R>) -> Result<R> {
    let owned = tensors.map(|t| t.contiguous());
    let mut list = Vec::with_capacity(N);
    for t in owned {
        list.push(t?);
    }
    let guards: Vec<_> = list.iter().map(|t| t.storage_and_layout()).collect();
    let mut slices: [&[T]; N] = [&[]; N];
    for (to, (s, l)) in slices.iter_mut().zip(&guards) {
        match &**s {
            Storage::Cpu(cpu) => *to = slice(cpu, l)?,
            _ => bail!("loram's fused operations run on the CPU"),
        }
    }
    f(slices)
}

fn same_dtype(name: &str, tensors: &[&Tensor]) -> Result<DType> {
    let dtype = tensors[0].dtype();
    match tensors.iter().find(|t| t.dtype() != dtype) {
        Some(t) => bail!("{name}: dtypes {dtype:?} and {:?} are mixed", t.dtype()),
        None => Ok(dtype),
    }
}
