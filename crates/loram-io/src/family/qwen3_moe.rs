//! Qwen3 with mixtures of experts.

use super::decoder::{self, Defaults, MODULES, NAMES};
use super::description::Family;
use super::experts::{self, ExpertFields};
use super::windows;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, ExpertConfig, ExpertModules, FamilyNames, Fields, LayerKind, ModelConfig, QkNorm,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "qwen3_moe", class_stem: "Qwen3Moe", tags_tokens: true, ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder (mixtures of experts)",
    ..Family::NEW
};

static OF_QWEN3_MOE: DecoderModules = DecoderModules {
    experts: Some(ExpertModules {
        places: &[("mlp.gate", "mlp.experts")],
        layers: Some(["gate_proj", "up_proj", "down_proj"]),
        alternating: false,
    }),
    ..MODULES
};

const DEFAULTS_15B: Defaults =
    Defaults { max_positions: 32_768, kv_heads: Some(4), bos: None, eos: &[], ..experts::DEFAULTS };

const EXPERTS: ExpertFields = ExpertFields { count: &["num_experts", "num_local_experts"], defaults: (128, 8) };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_15B)?;
    let inner = if f.get("moe_intermediate_size").is_some() { f.dim("moe_intermediate_size")? } else { 768 };
    let mixture = experts::read(f, &EXPERTS, inner, experts::gate(&config))?;
    let mixture = ExpertConfig { normalised: f.bool("norm_topk_prob", false)?, ..mixture };
    let every = match f.usize("decoder_sparse_step", 1)? {
        0 => return Err(f.error("decoder_sparse_step", "must be at least 1")),
        every => every,
    };
    let dense = dense_blocks(f)?;
    // its class has no blocks that see more than others
    let used = f.bool("use_sliding_window", false)?;
    let window = windows::window(f, Some(4096))?.filter(|_| used);
    let layers = experts::blocks(&config, |i| !dense.contains(&i) && (i + 1) % every == 0);
    let layers = layers.into_iter().map(|layer| LayerKind { sliding_window: window, ..layer }).collect();
    let bias = f.bool("attention_bias", false)?;
    Ok(DecoderConfig {
        modules: &OF_QWEN3_MOE,
        qkv_bias: bias,
        o_bias: bias,
        qk_norm: QkNorm::Heads,
        experts: Some(mixture),
        layers,
        ..config
    })
}

/// The blocks with an MLP, whatever `decoder_sparse_step` says.
fn dense_blocks(f: &Fields<'_>) -> Result<Vec<usize>> {
    const FIELD: &str = "mlp_only_layers";
    let Some(list) = f.get(FIELD) else { return Ok(Vec::new()) };
    let numbers = list.as_array().and_then(|list| {
        list.iter().map(|v| v.as_u64().and_then(|n| usize::try_from(n).ok())).collect::<Option<Vec<usize>>>()
    });
    numbers.ok_or_else(|| f.error(FIELD, format!("expected a list of the numbers of blocks, found {list}")))
}
