//! The parameters of a rank, which are equal to those of all others.

use crate::Result;
use loram_nn::{Compute, Model, Param, Tensor};

/// Steps between two checks that the parameters of all ranks are equal.
pub const CHECK_STEPS: usize = 100;

/// The gradients of all parameters, one after another.
pub fn gradients(model: &Model, flat: &mut Vec<f32>) -> Result<()> {
    flat.clear();
    for p in model.params().iter() {
        append(&p.grad, flat)?;
    }
    Ok(())
}

/// Overwrites the gradients of all parameters.
pub fn set_gradients(model: &mut Model, flat: &[f32]) -> Result<()> {
    set(model, flat, |p| &mut p.grad)
}

/// The values of all parameters, one after another.
pub fn values(model: &Model, flat: &mut Vec<f32>) -> Result<()> {
    flat.clear();
    for p in model.params().iter() {
        append(&p.value, flat)?;
    }
    Ok(())
}

/// Overwrites the values of all parameters.
pub fn set_values(model: &mut Model, flat: &[f32]) -> Result<()> {
    set(model, flat, |p| &mut p.value)
}

fn append(tensor: &Tensor, flat: &mut Vec<f32>) -> Result<()> {
    match tensor.compute() {
        Compute::F32 => flat.extend_from_slice(tensor.f32s()),
        _ => flat.extend(tensor.values()?),
    }
    Ok(())
}

fn set(model: &mut Model, flat: &[f32], of: impl Fn(&mut Param) -> &mut Tensor) -> Result<()> {
    let mut from = 0;
    for p in model.params_mut().iter_mut() {
        let tensor = of(p);
        let to = from + tensor.len();
        tensor.set_values(&flat[from..to])?;
        from = to;
    }
    Ok(())
}

/// A checksum of values: FNV-1a over their bits, a word at a time.
pub fn checksum(values: &[f32]) -> u64 {
    values.iter().fold(0xcbf2_9ce4_8422_2325, |h, x| (h ^ u64::from(x.to_bits())).wrapping_mul(0x0000_0100_0000_01b3))
}
