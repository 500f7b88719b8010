//! Activation functions by their names in transformers.

use super::fields::Fields;
use crate::Error;

/// Activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x).
    Silu,
    /// x·Φ(x), exactly.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// max(x, 0).
    Relu,
    /// tanh(x): heads only, no family has it in its blocks.
    Tanh,
}

impl Activation {
    /// The activation of a name in transformers; `None` when it is not supported.
    pub fn parse(name: &str) -> Option<Activation> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" | "gelu_python" => Activation::Gelu,
            // five names of one formula
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
                Activation::GeluTanh
            }
            "relu" => Activation::Relu,
            _ => return None,
        })
    }

    pub(crate) fn unsupported(f: &Fields<'_>, field: &str, name: &str) -> Error {
        f.error(field, format!("activation `{name}` is not supported; supported: silu, gelu, gelu_new, relu"))
    }
}
