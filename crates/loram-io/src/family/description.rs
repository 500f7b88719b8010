//! The description of a family, which its file provides.

use crate::Result;
use crate::config::{FamilyNames, Fields, ModelConfig};
use serde_json::{Map, Value};

/// The reference of most families.
const RANDOM: &str = "a small random model in transformers and PEFT";

/// One architecture of transformers.
pub(super) struct Family {
    /// Names of its classes and modules.
    pub names: FamilyNames,
    /// Reads its `config.json`. `None` for a family that adapters are initialised for, but that does not run here.
    pub read: Option<fn(&Fields<'_>) -> Result<ModelConfig>>,
    /// Its form in GGUF files, where these have it.
    pub gguf: Option<GgufFamily>,
    /// Its `config.json` describes towers for text and other things, of which the one for text is read, as the family that
    /// `model_type` in `text_config` names, or this one.
    pub text_tower: Option<&'static str>,
    /// The models of this architecture, for the documentation.
    pub about: &'static str,
    /// The references that its results are compared with, for the documentation.
    pub checked: &'static str,
}

impl Family {
    /// A family without names.
    pub const NEW: Family =
        Family { names: super::decoder::NAMES, read: None, gguf: None, text_tower: None, about: "", checked: RANDOM };

    /// Returns whether models of it run here.
    pub fn runs(&self) -> bool {
        self.read.is_some() || self.text_tower.is_some()
    }
}

/// The form of a family in GGUF files.
#[derive(Debug)]
pub(crate) struct GgufFamily {
    /// `general.architecture`, and the prefix of its keys.
    pub architecture: &'static str,
    /// The rows of queries and keys are stored with the two halves of a head interleaved, for a rotary embedding that turns neighbours.
    pub interleaved: bool,
    /// Parts of a block: names in the file, and module paths within the block.
    pub modules: &'static [(&'static str, &'static str)],
    /// Weights of norms are stored plus this.
    pub norm_shift: f32,
    /// Further numbers: their keys after the architecture, and the fields of `config.json` that they are.
    pub numbers: &'static [(&'static str, &'static str)],
    /// Sets fields that follow from others.
    pub complete: fn(&mut Map<String, Value>),
}

impl GgufFamily {
    /// A form without names.
    pub const NEW: GgufFamily = GgufFamily {
        architecture: "",
        interleaved: false,
        modules: &[],
        norm_shift: 0.0,
        numbers: &[],
        complete: |_| {},
    };
}
