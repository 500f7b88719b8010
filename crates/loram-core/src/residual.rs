//! The base of schemes whose B₀A₀ is not 0: W_res = W − s·B₀A₀.

use crate::schemes::Initialization;
use half::{bf16, f16};
use rayon::prelude::*;

/// Type in which factors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// 32-bit floats: nothing is rounded.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    BF16,
}

impl Stored {
    /// Rounds values to what this type can hold.
    pub fn round(self, values: &mut [f32]) {
        match self {
            Stored::F32 => {}
            Stored::F16 => values.par_iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
            Stored::BF16 => values.par_iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        }
    }
}

impl Initialization {
    /// Rounds A₀ and B₀ to the type in which they will be stored. To be done before [`residual`]: then the product that
    /// is subtracted is the one that the stored factors have, and the rounding of the factors does not show in the model.
    pub fn round(&mut self, stored: Stored) {
        stored.round(&mut self.factors.a);
        stored.round(&mut self.factors.b);
    }
}

/// W ← W − s·B₀A₀ in f32, for W (n, m) row-major; nothing when the scheme leaves the base as it is.
pub fn residual(w: &mut [f32], init: &Initialization) {
    if init.changes_base {
        init.factors.add_to(w, -init.scaling);
    }
}
