//! BERT.

use super::description::Family;
use super::encoder::{KEYS, MODULES, NAMES, read_bert};
use crate::Result;
use crate::config::{ClassifierModules, EncoderModules, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "bert", class_stem: "Bert", backbone: "bert.", ..NAMES },
    read: Some(read),
    about: "BERT, MiniLM and other BERT checkpoints",
    ..Family::NEW
};

/// The pooler is a part of the backbone, which PEFT adapts; a head that trains it saves it by its path.
static OF_BERT: EncoderModules = EncoderModules {
    classifier: ClassifierModules {
        dense: "bert.pooler.dense",
        dense_module: "bert.pooler.dense",
        ..MODULES.classifier
    },
    ..MODULES
};

fn read(f: &Fields<'_>) -> Result<ModelConfig> {
    read_bert(f, &FAMILY.names, &OF_BERT, &KEYS).map(ModelConfig::Encoder)
}
