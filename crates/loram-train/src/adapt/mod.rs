//! Adapters on a model: from settings to initial factors, from the trained factors to a folder, and back.

mod attach;
mod calibrate;
mod export;
mod init;
mod init_on_data;
mod load;
mod tokens;

pub use calibrate::Calibration;
pub use export::ExportInfo;
pub use init::initialize;
pub use init_on_data::init_on_data;
pub use load::{LoadAdapter, load};

use loram_core::{Factors, LayerPlan, LoraConfig, from_recipe};
use loram_io::adapter::Recipe;
use std::collections::BTreeMap;

/// The adapters on a model and their initialisation: with the trained factors, all that an adapter folder needs.
#[derive(Debug, Clone)]
pub struct Adaptation {
    /// PEFT's settings, at the rank that is trained.
    pub config: LoraConfig,
    /// Adapted layers by module path.
    pub layers: BTreeMap<String, AdaptedLayer>,
    /// Modules that are fully trained, by path.
    pub saved: Vec<String>,
    /// How the layers were initialised, with the form that the trained factors have; `None` for another program's adapter.
    pub recipe: Option<Recipe>,
}

/// An adapted layer.
#[derive(Debug, Clone)]
pub struct AdaptedLayer {
    /// Shape, rank and scaling.
    pub plan: LayerPlan,
    /// The initial product is subtracted from the base: the update is then `s·(B·A − B₀·A₀)`.
    pub changes_base: bool,
    /// The initial factors, where they are needed and the recipe alone does not give them.
    stored: Option<Factors>,
    /// The fingerprint entry of its weight, where the initialisation has read that from a file.
    digest: Option<String>,
    /// ‖W‖_F, where the initialisation has seen it.
    pub(crate) weight_norm: Option<f64>,
}

impl Adaptation {
    /// Returns whether the trained factors differ in meaning from a plain adapter.
    pub fn changes_base(&self) -> bool {
        self.layers.values().any(|l| l.changes_base)
    }

    /// The initial factors of a layer that changes its base, else `None`.
    pub fn initial(&self, path: &str) -> Option<Factors> {
        let layer = self.layers.get(path).filter(|l| l.changes_base)?;
        layer.stored.clone().or_else(|| from_recipe(self.recipe.as_ref()?.layers.get(path)?))
    }
}
