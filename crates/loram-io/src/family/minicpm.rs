//! MiniCPM (1, 2, 4): a Llama with factors on embeddings, branches and logits. Its class comes with the model, not with
//! transformers; with other names of the factors it is Granite's.

use super::decoder::{self, DEFAULTS, Defaults, NAMES, factor};
use super::description::Family;
use crate::Result;
use crate::config::{DecoderConfig, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "minicpm", class_stem: "MiniCPM", ..NAMES },
    read: Some(|f| read(f).map(ModelConfig::Decoder)),
    about: "MiniCPM, MiniCPM4 (dense attention)",
    checked: "a small random model in transformers' Granite, which is the same with other names",
    ..Family::NEW
};

const DEFAULTS_2B: Defaults = Defaults { tied: true, ..DEFAULTS };

fn read(f: &Fields<'_>) -> Result<DecoderConfig> {
    let config = decoder::read(f, &FAMILY.names, &DEFAULTS_2B)?;
    let bias = f.bool("attention_bias", false)?;
    Ok(DecoderConfig {
        qkv_bias: bias,
        o_bias: bias,
        embedding_scale: factor(f, "scale_emb", 1.0)?,
        residual_scale: factor(f, "scale_depth", 1.0)? / (config.num_layers as f64).sqrt(),
        logit_scale: factor(f, "dim_model_base", 1.0)? / config.hidden_size as f64,
        ..config
    })
}
