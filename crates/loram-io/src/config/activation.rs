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
    /// x·σ(1.702·x), the sigmoid approximation of GELU.
    QuickGelu,
    /// max(x, 0).
    Relu,
    /// tanh(x).
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
            "quick_gelu" => Activation::QuickGelu,
            "relu" => Activation::Relu,
            "tanh" => Activation::Tanh,
            _ => return None,
        })
    }

    pub(crate) fn unsupported(f: &Fields<'_>, field: &str, name: &str) -> Error {
        let supported = "silu, gelu, gelu_new, quick_gelu, relu, tanh";
        f.error(field, format!("activation `{name}` is not supported; supported: {supported}"))
    }
}
