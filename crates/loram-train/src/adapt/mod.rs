//! Adapters on a model: from settings to a start, from the trained factors to a folder, and back.

mod calibrate;
mod export;
mod init;
mod load;
mod start;

pub use calibrate::Calibration;
pub use export::ExportInfo;
pub use init::init_on_data;
pub use load::{LoadAdapter, load};
pub use start::{StartOptions, fingerprint, start};

use loram_core::{Factors, LayerPlan, LayerRecipe, LoraConfig, SchemeOptions, from_recipe};
use loram_io::adapter::Fingerprint;
use std::collections::BTreeMap;

/// What was put on a model, and how it was started: with the trained factors, all that an adapter folder needs.
#[derive(Debug, Clone)]
pub struct Adaptation {
    /// PEFT's settings, at the rank that is trained.
    pub config: LoraConfig,
    /// Adapted layers by module path.
    pub layers: BTreeMap<String, AdaptedLayer>,
    /// Modules that are trained whole, by path.
    pub saved: Vec<String>,
    /// Canonical name of the scheme; `None` when another program started the adapter.
    pub scheme: Option<String>,
    /// Its options.
    pub options: SchemeOptions,
    /// Seed of the start.
    pub seed: u64,
    /// The base that it was started on.
    pub base: Option<Fingerprint>,
    /// Labels of the head.
    pub labels: Option<Vec<String>>,
}

/// An adapted layer.
#[derive(Debug, Clone)]
pub struct AdaptedLayer {
    /// Shape, rank and scaling.
    pub plan: LayerPlan,
    /// How the start was made.
    pub recipe: Option<LayerRecipe>,
    /// Whether the start's product is taken off the base: the update is then `s·(B·A − B₀·A₀)`.
    pub changes_base: bool,
    /// The initial factors, where they are needed and the recipe alone does not give them.
    init: Option<Factors>,
}

impl AdaptedLayer {
    /// The initial factors of a layer that changes its base, else `None`.
    pub fn init(&self) -> Option<Factors> {
        if !self.changes_base {
            return None;
        }
        self.init.clone().or_else(|| from_recipe(self.recipe.as_ref()?))
    }
}

impl Adaptation {
    /// Whether the trained factors differ in meaning from a plain adapter.
    pub fn changes_base(&self) -> bool {
        self.layers.values().any(|l| l.changes_base)
    }

    /// Initial factors that only a stored copy can give, by layer: needed beside the factors to resume.
    fn stored_init(&self) -> BTreeMap<String, Factors> {
        self.layers.iter().filter_map(|(path, l)| Some((path.clone(), l.init.clone()?))).collect()
    }
}
