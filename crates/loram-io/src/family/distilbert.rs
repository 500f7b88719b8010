//! DistilBERT: no token types, other names everywhere.

use super::description::Family;
use super::encoder::{KEYS, Keys, MODULES, NAMES, read as read_encoder};
use crate::Result;
use crate::config::{
    Activation, ClassifierModules, EncoderConfig, EncoderModules, FamilyNames, Fields, MlpModules, ModelConfig,
    Projections,
};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames {
        model_type: "distilbert",
        class_stem: "DistilBert",
        backbone: "distilbert.",
        parts: &["embeddings.", "transformer."],
        ..NAMES
    },
    read: Some(read),
    about: "DistilBERT",
    ..Family::NEW
};

static OF_DISTILBERT: EncoderModules = EncoderModules {
    blocks: "transformer.layer",
    qkv: Projections::Apart(["attention.q_lin", "attention.k_lin", "attention.v_lin"]),
    o: "attention.out_lin",
    attention_norm: Some("sa_layer_norm"),
    mlp: MlpModules::Plain("ffn.lin1"),
    down: "ffn.lin2",
    output_norm: Some("output_layer_norm"),
    classifier: ClassifierModules {
        dense: "pre_classifier",
        dense_module: "pre_classifier",
        // PEFT finds heads by the end of their name
        dense_is_output: true,
        ..MODULES.classifier
    },
    ..MODULES
};

/// transformers accepts both names of the first three.
const OWN_KEYS: Keys = Keys {
    hidden_size: &["dim", "hidden_size"],
    heads: &["n_heads", "num_attention_heads"],
    layers: &["n_layers", "num_hidden_layers"],
    intermediate_size: "hidden_dim",
    activation: "activation",
    hidden_dropout: "dropout",
    attention_dropout: "attention_dropout",
    ..KEYS
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    let config = read_encoder(f, &FAMILY.names, &OF_DISTILBERT, &OWN_KEYS)?;
    // ε of the norms is fixed in its code
    let classifier_dropout = f.f64("seq_classif_dropout", 0.2)?;
    let classifier_act = Activation::Relu;
    Ok(ModelConfig::Encoder(EncoderConfig { attention_out_dropout: 0.0, classifier_act, classifier_dropout, ..config }))
}
