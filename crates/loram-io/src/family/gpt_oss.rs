//! gpt-oss: a sink beside the keys of each head, windows in every other block, and mixtures of experts with biases and a clamped gate.

use super::decoder::{self, Defaults, MODULES, NAMES, factor};
use super::description::Family;
use super::experts::{self, ExpertFields};
use super::windows;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, ExpertConfig, ExpertModules, FamilyNames, Fields, Gate, LayerKind, ModelConfig,
};
use serde_json::json;

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "gpt_oss", class_stem: "GptOss", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "gpt-oss (20B, 120B)",
    ..Family::NEW
};

static OF_GPT_OSS: DecoderModules = DecoderModules {
    sinks: Some("self_attn.sinks"),
    experts: Some(ExpertModules { places: &[("mlp.router", "mlp.experts")], layers: None, alternating: true }),
    ..MODULES
};

const DEFAULTS_120B: Defaults = Defaults {
    max_positions: 131_072,
    kv_heads: Some(8),
    head_dim: Some(64),
    theta: 150_000.0,
    eps: 1e-5,
    bos: None,
    eos: &[],
    ..experts::DEFAULTS
};

const EXPERTS: ExpertFields = ExpertFields { count: &["num_local_experts", "num_experts"], defaults: (128, 4) };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let mut map = f.map.clone();
    if f.get("rope_parameters").is_none() && f.get("rope_scaling").is_none() {
        let scaling = json!({"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096});
        map.insert("rope_scaling".into(), scaling);
    }
    let config = decoder::read(&Fields { map: &map, ..*f }, &FAMILY.names, &DEFAULTS_120B)?;
    let gate = Gate::Clamped { alpha: factor(f, "swiglu_alpha", 1.702)?, limit: factor(f, "swiglu_limit", 7.0)? };
    let mixture = ExpertConfig { bias: true, ..experts::read(f, &EXPERTS, config.intermediate_size, gate)? };
    let n = config.num_layers;
    let slides = windows::layer_types(f, n)?.unwrap_or_else(|| (0..n).map(|i| i % 2 == 0).collect());
    let layers = windows::blocks(f, &slides, &vec![true; n], windows::window(f, Some(128))?)?;
    let layers = layers.into_iter().map(|layer| LayerKind { experts: true, ..layer }).collect();
    let bias = f.bool("attention_bias", true)?;
    Ok(DecoderConfig {
        modules: &OF_GPT_OSS,
        qkv_bias: bias,
        o_bias: bias,
        experts: Some(mixture),
        layers,
        raw: f.map.clone(),
        ..config
    })
}
