//! RoBERTa and XLM-RoBERTa: BERT whose positions begin after the padding token, with a classifier of two layers.

use super::description::Family;
use super::encoder::{KEYS, Keys, MODULES, NAMES, read_bert};
use crate::Result;
use crate::config::{ClassifierModules, EncoderConfig, EncoderModules, FamilyNames, Fields, ModelConfig};

pub(super) static FAMILY: Family = Family {
    names: FamilyNames { model_type: "roberta", class_stem: "Roberta", backbone: "roberta.", ..NAMES },
    read: Some(|f| read(f, &FAMILY.names)),
    about: "RoBERTa",
    ..Family::NEW
};

pub(super) static XLM: Family = Family {
    names: FamilyNames { model_type: "xlm-roberta", class_stem: "XLMRoberta", backbone: "roberta.", ..NAMES },
    read: Some(|f| read(f, &XLM.names)),
    about: "XLM-R",
    checked: "as RoBERTa, whose reading it shares",
    ..Family::NEW
};

static OF_ROBERTA: EncoderModules = EncoderModules {
    classifier: ClassifierModules {
        dense: "classifier.dense",
        dense_module: "classifier",
        dense_is_output: true,
        out: "classifier.out_proj",
        ..MODULES.classifier
    },
    ..MODULES
};

fn read(f: &Fields<'_>, names: &'static FamilyNames) -> Result<ModelConfig> {
    let keys = Keys { pad: 1, positions_after_pad: true, ..KEYS };
    let config = read_bert(f, names, &OF_ROBERTA, &keys)?;
    let classifier_input_dropout = config.classifier_dropout;
    Ok(ModelConfig::Encoder(EncoderConfig { classifier_input_dropout, ..config }))
}
