//! ModernBERT: norms before attention and MLP, rotary embeddings of two bases, local and global attention in turn, a gated MLP, and no
//! biases.

use super::description::Family;
use super::encoder::{KEYS, Keys, MODULES, NAMES, read as read_encoder};
use crate::Result;
use crate::config::{
    Activation, ClassifierModules, EncoderConfig, EncoderLayer, EncoderModules, FamilyNames, Fields, MlpModules,
    ModelConfig, PartialRotary, PoolingMode, Projections, RopeDefaults, parse_ropes_by_type,
};
use serde_json::Value;

pub(super) static FAMILY: Family = Family {
    names: FamilyNames {
        model_type: "modernbert",
        class_stem: "ModernBert",
        backbone: "model.",
        embedding: "embeddings.tok_embeddings",
        parts: &["embeddings.", "layers.", "final_norm."],
        ..NAMES
    },
    read: Some(read),
    about: "ModernBERT",
    ..Family::NEW
};

static OF_MODERNBERT: EncoderModules = EncoderModules {
    embedding_norm: "embeddings.norm",
    blocks: "layers",
    input_norm: Some("attn_norm"),
    qkv: Projections::Fused("attn.Wqkv"),
    o: "attn.Wo",
    attention_norm: None,
    mlp_norm: Some("mlp_norm"),
    mlp: MlpModules::Gated(Projections::Fused("mlp.Wi")),
    down: "mlp.Wo",
    output_norm: None,
    final_norm: Some("final_norm"),
    classifier: ClassifierModules {
        dense: "head.dense",
        dense_module: "head",
        norm: Some("head.norm"),
        tokens_use_dense: true,
        sets_pooling: true,
        ..MODULES.classifier
    },
    ..MODULES
};

const OWN_KEYS: Keys = Keys {
    activation: "hidden_activation",
    hidden_dropout: "embedding_dropout",
    attention_dropout: "attention_dropout",
    dropout: 0.0,
    max_positions: 8192,
    pad: 50_283,
    ..KEYS
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let config = read_encoder(f, &FAMILY.names, &OF_MODERNBERT, &OWN_KEYS)?;
    if config.head_dim() % 2 == 1 {
        let what = format!("rotary embedding needs an even width of heads, found {}", config.head_dim());
        return Err(f.error("num_attention_heads", what));
    }
    if f.f64("mlp_dropout", 0.0)? != 0.0 {
        return Err(f.error("mlp_dropout", "dropout inside the MLP is not supported, only 0"));
    }
    let pooling = config.pooling.or(Some(PoolingMode::Cls));
    if pooling == Some(PoolingMode::Last) {
        return Err(f.error("classifier_pooling", "`last` is not supported by this architecture, only cls and mean"));
    }
    // a field of older files that is not in those of transformers 5
    let theta = f.f64("global_rope_theta", 160_000.0)?;
    let defaults = RopeDefaults { theta, partial_rotary: PartialRotary::Ignored };
    let ropes = parse_ropes_by_type(f, &defaults, ("local_rope_theta", 10_000.0), config.max_position_embeddings)?;
    let act = f.opt_str("classifier_activation")?.unwrap_or("gelu");
    let classifier_dropout = f.f64("classifier_dropout", 0.0)?;
    Ok(ModelConfig::Encoder(EncoderConfig {
        has_positions: false,
        layers: layers(f, config.num_layers)?,
        ropes,
        attention_bias: f.bool("attention_bias", false)?,
        mlp_bias: f.bool("mlp_bias", false)?,
        norm_bias: f.bool("norm_bias", false)?,
        layer_norm_eps: f.f64("norm_eps", 1e-5)?,
        attention_out_dropout: config.attention_dropout,
        mlp_out_dropout: 0.0,
        classifier_bias: f.bool("classifier_bias", false)?,
        classifier_act: Activation::parse(act)
            .ok_or_else(|| Activation::unsupported(f, "classifier_activation", act))?,
        classifier_dropout,
        token_dropout: classifier_dropout,
        pooling,
        ..config
    }))
}

/// Blocks of global attention, each after some of local attention to half of `local_attention` tokens on either side.
fn layers(f: &Fields<'_>, count: usize) -> Result<Vec<EncoderLayer>> {
    let window = f.usize("local_attention", 128)? / 2;
    let global = EncoderLayer { window: None, rope: Some(0), has_input_norm: true };
    let local = EncoderLayer { window: Some(window), rope: Some(1), ..global };
    let every = f.usize("global_attn_every_n_layers", 3)?.max(1);
    let mut layers = match f.get("layer_types") {
        None => (0..count).map(|i| if i % every == 0 { global } else { local }).collect::<Vec<_>>(),
        Some(Value::Array(kinds)) if kinds.len() == count => kinds
            .iter()
            .map(|kind| match kind.as_str() {
                Some("full_attention") => Ok(global),
                Some("sliding_attention") => Ok(local),
                _ => Err(f.error("layer_types", format!("expected full_attention or sliding_attention, found {kind}"))),
            })
            .collect::<Result<_>>()?,
        Some(_) => return Err(f.error("layer_types", format!("expected a list of {count}, one for each layer"))),
    };
    layers[0].has_input_norm = false;
    Ok(layers)
}
