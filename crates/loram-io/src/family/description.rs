//! The description of a family, which its file provides.

use crate::Result;
use crate::config::{FamilyNames, Fields, ModelConfig};

/// One architecture of transformers.
pub(super) struct Family {
    /// Names of its classes and modules.
    pub names: FamilyNames,
    /// Reads its `config.json`. `None` for a family that adapters are initialised for, but that does not run here.
    pub read: Option<fn(&Fields<'_>) -> Result<ModelConfig>>,
}
