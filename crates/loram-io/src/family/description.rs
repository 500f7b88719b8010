//! The description of a family, which its file provides.

use crate::Result;
use crate::config::{FamilyNames, Fields, ModelConfig};

/// One architecture of transformers.
pub(super) struct Family {
    /// Names of its classes and modules.
    pub names: FamilyNames,
    /// Reads its `config.json`. `None` for a family that adapters are initialised for, but that does not run here.
    pub read: Option<fn(&Fields<'_>) -> Result<ModelConfig>>,
    /// Its form in GGUF files, where these have it.
    pub gguf: Option<GgufFamily>,
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
}
