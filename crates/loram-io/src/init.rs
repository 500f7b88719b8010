//! Initialisation of adapters: over a whole checkpoint, from a recipe, or over the weights of a model that is trained.

mod checkpoint;
mod layers;
mod pipeline;
mod recompute;
mod report;
mod reproduce;
mod residual;
mod weight;
mod writer;

pub use checkpoint::{BaseName, init, init_to};
pub use layers::Progress;
pub(crate) use layers::each;
pub use pipeline::{InitOptions, InitRecord, LayerInit};
pub(crate) use recompute::{recompute, recompute_factors};
pub use report::{InitReport, InitializedLayer};
pub use reproduce::{Base, recipe_in_4bit, reproduce};
pub use residual::{Residual, write_residual};
pub use weight::InitWeight;
