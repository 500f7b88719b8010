//! Layers of heads, which the checkpoint need not have.

use super::Loader;
use crate::linear::Linear;
use crate::model::parts::Norm;
use crate::param::Trainable;
use crate::tensor::Tensor;
use crate::weight::Weight;
use crate::{Error, Result};
use loram_io::config::{HeadLayer, HeadNorm};
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Normal values of deviation `std` from ChaCha8 (Box–Muller), as transformers initialises a new head.
fn normal(seed: u64, len: usize, std: f64) -> Vec<f32> {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = move || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut out = Vec::with_capacity(len + 1);
    while out.len() < len {
        let radius = std * (-2.0 * (1.0 - uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * uniform();
        out.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    out.truncate(len);
    out
}

impl Loader<'_> {
    /// The checkpoint's layer of a head, or a fresh one when it has none of these outputs.
    pub fn head_layer(&self, layer: &HeadLayer, seed: u64, std: f64) -> Result<Linear> {
        let &HeadLayer { path, n, m, bias, .. } = layer;
        if self.has(&format!("{path}.weight")) {
            return match self.linear(path.to_string(), n, m, bias) {
                Err(Error::Shape { name, found, expected }) => Err(Error::Task(format!(
                    "tensor `{name}`: the checkpoint's head has shape {found:?}, this task needs {expected:?}: \
                 give data with the model's labels, or start from a checkpoint without a head"
                ))),
                other => other,
            };
        }
        tracing::info!("`{path}` is not in the checkpoint: initialised at random (seed {seed})");
        // each fresh layer gets a stream of its own
        let stream = path.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let mut linear = Linear::frozen(path.to_string(), Weight::from_f32(n, m, normal(stream, n * m, std)));
        if bias {
            linear.bias = Some(Trainable::Frozen(Tensor::zeros(self.compute.exact(), 1, n)));
        }
        Ok(linear)
    }

    /// The layer norm of a head, or a fresh one if the checkpoint does not have it.
    pub fn head_norm(&self, norm: &HeadNorm, len: usize) -> Result<Norm> {
        let path = norm.path.to_string();
        if self.has(&format!("{path}.weight")) {
            return self.layer_norm(path, len, norm.eps, norm.bias);
        }
        let constant = |x: f32| Trainable::Frozen(Tensor::from_f32(self.compute.exact(), 1, len, &vec![x; len]));
        let (weight, bias) = (constant(1.0), Some(constant(0.0)));
        Ok(Norm { path, weight, bias, bias_is_fixed: !norm.bias, eps: norm.eps, offset: None })
    }
}
