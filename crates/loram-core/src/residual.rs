//! The base of schemes whose B₀A₀ is not 0: W_res = W − s·B₀A₀.

use crate::schemes::Initialization;

/// W ← W − s·B₀A₀ in f32, for W (n, m) row-major; nothing when the scheme leaves the base as it is.
pub fn residual(w: &mut [f32], init: &Initialization) {
    if init.changes_base {
        init.factors.add_to(w, -init.scaling);
    }
}
