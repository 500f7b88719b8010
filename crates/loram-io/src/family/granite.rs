//! Granite 3 and the dense models of Granite 4: a Llama with factors on embeddings, scores, branches and logits.

use super::decoder::{self, DEFAULTS, MODULES, NAMES, factor};
use super::description::Family;
use crate::Result;
use crate::config::{
    DecoderConfig, DecoderModules, FamilyNames, Fields, LayerKind, MlpModules, ModelConfig, Projections,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "granite", class_stem: "Granite", ..NAMES },
    read: Some(|f| read(f, &FAMILY.names).map(ModelConfig::Decoder)),
    about: "Granite 3 (dense)",
    ..Family::NEW
};

pub(super) static HYBRID: Family = Family {
    names: FamilyNames { model_type: "granitemoehybrid", class_stem: "GraniteMoeHybrid", ..NAMES },
    read: Some(|f| read_dense(f).map(ModelConfig::Decoder)),
    about: "Granite 4 (dense, attention in all blocks)",
    ..Family::NEW
};

/// Its MLP is the shared expert of the models that have experts.
static OF_HYBRID: DecoderModules = DecoderModules {
    mlp: MlpModules::Gated(Projections::Fused("shared_mlp.input_linear")),
    down: "shared_mlp.output_linear",
    ..MODULES
};

fn read(f: &Fields<'_>, names: &'static FamilyNames) -> Result<DecoderConfig> {
    let config = decoder::read(f, names, &DEFAULTS)?;
    let bias = f.bool("attention_bias", false)?;
    Ok(DecoderConfig {
        qkv_bias: bias,
        o_bias: bias,
        mlp_bias: f.bool("mlp_bias", false)?,
        embedding_scale: factor(f, "embedding_multiplier", 1.0)?,
        attention_scale: factor(f, "attention_multiplier", 1.0)?,
        residual_scale: factor(f, "residual_multiplier", 1.0)?,
        logit_scale: 1.0 / factor(f, "logits_scaling", 1.0)?,
        ..config
    })
}

fn read_dense(f: &Fields<'_>) -> Result<DecoderConfig> {
    if f.usize("num_local_experts", 8)? > 0 {
        return Err(f.error("num_local_experts", "mixture-of-experts models are not supported: expected 0"));
    }
    let config = read(f, &HYBRID.names)?;
    let types = f.get("layer_types").or_else(|| f.get("layers_block_type"));
    let field = if f.get("layer_types").is_some() { "layer_types" } else { "layers_block_type" };
    let attention = |t: &serde_json::Value| matches!(t.as_str(), Some("attention" | "full_attention"));
    match types.and_then(|t| t.as_array()) {
        Some(types) if types.len() == config.num_layers && types.iter().all(attention) => {}
        _ => {
            let what = "state space (Mamba) blocks are not supported: expected `attention` for every block";
            return Err(f.error(field, what));
        }
    }
    let rope = match f.opt_str("position_embedding_type")? {
        Some("rope") => Some(0),
        None | Some("nope") => None,
        Some(other) => {
            return Err(f.error("position_embedding_type", format!("`{other}` is not supported, only `rope`")));
        }
    };
    let intermediate_size = match f.get("shared_intermediate_size") {
        Some(_) => f.dim("shared_intermediate_size")?,
        None => 1024,
    };
    let layers = vec![LayerKind { rope, ..LayerKind::PLAIN }; config.num_layers];
    Ok(DecoderConfig { modules: &OF_HYBRID, mlp_bias: false, intermediate_size, layers, ..config })
}
