//! Mixtures of experts as `config.json` describes them.

use super::decoder;
use crate::Result;
use crate::config::{DecoderConfig, ExpertConfig, Fields, Gate, LayerKind};

/// The names of fields and their values in files without them.
pub(super) struct ExpertFields {
    /// The number of experts: its names.
    pub count: &'static [&'static str],
    /// That number, and how many of them a token goes to.
    pub defaults: (usize, usize),
}

/// Reads the fields that mixtures have in common; `intermediate_size` is the width inside an expert.
pub(super) fn read(
    f: &Fields<'_>,
    fields: &ExpertFields,
    intermediate_size: usize,
    gate: Gate,
) -> Result<ExpertConfig> {
    if f.bool("output_router_logits", false)? {
        let what = "asks for the auxiliary loss of the routers, which is not supported: set it to false";
        return Err(f.error("output_router_logits", what));
    }
    if f.f64("router_jitter_noise", 0.0)? != 0.0 {
        return Err(f.error("router_jitter_noise", "noise in training is not supported: expected 0"));
    }
    let field = fields.count.iter().copied().find(|name| f.get(name).is_some());
    let count = field.map_or(Ok(fields.defaults.0), |name| f.dim(name))?;
    let per_token =
        if f.get("num_experts_per_tok").is_some() { f.dim("num_experts_per_tok")? } else { fields.defaults.1 };
    if per_token > count {
        let what = format!("a token goes to {per_token} experts, but a block has {count}");
        return Err(f.error("num_experts_per_tok", what));
    }
    Ok(ExpertConfig { count, per_token, intermediate_size, normalised: true, bias: false, gate })
}

/// The gate of a decoder's own activation function.
pub(super) fn gate(config: &DecoderConfig) -> Gate {
    Gate::Activation(config.hidden_act)
}

/// The blocks of a decoder, with a mixture in those for which `sparse` says so.
pub(super) fn blocks(config: &DecoderConfig, sparse: impl Fn(usize) -> bool) -> Vec<LayerKind> {
    let layers = config.layers.iter().enumerate();
    layers.map(|(i, layer)| LayerKind { experts: sparse(i), ..*layer }).collect()
}

/// Defaults of a family with mixtures.
pub(super) const DEFAULTS: decoder::Defaults = decoder::Defaults { experts: true, ..decoder::DEFAULTS };
