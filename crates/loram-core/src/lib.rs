//! The mathematics of LoRA adapters, on plain slices: no files, no tensor framework.
//!
//! Notation: a linear layer has a weight `W` of shape (n, m) = (out_features, in_features), row-major; an adapter of rank
//! r adds s·B·A with B (n, r) and A (r, m). ν\[X\] = ‖X‖²_F / entries is the magnitude of a matrix.

mod basis;
mod config;
mod convert;
mod error;
mod gain;
mod linalg;
pub mod magnitude;
mod rng;
mod schemes;
mod targets;

pub use basis::{Basis, sines};
pub use config::{LoraConfig, OneOrMany, TargetModules};
pub use convert::{add_product, plain_alpha, plain_factors, truncate};
pub use error::{Error, Result};
pub use gain::{Gain, GainStatistic, exact as exact_gain};
pub use schemes::{
    LayerRecipe, MatRef, SchemeInfo, SchemeOptions, SchemeSpec, Start, from_recipe, initialize, registry,
};
pub use targets::{LayerPlan, LinearInfo, plan_layers};
