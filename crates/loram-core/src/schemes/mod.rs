//! How adapters are initialised: one file for each scheme in `built_in`, by name in the [`registry`].

mod built_in;
mod context;
mod factors;
mod info;
mod input;
mod observed;
pub mod option;
mod pipeline;
mod predict;
mod recipe;
mod registry;
mod spec;

pub use built_in::{principal_components, redistribute_ranks};
pub use context::Context;
pub use factors::{Scale, SchemeFactors};
pub use info::{Behaviour, OfLayer, SchemeInfo, Tracked};
pub use input::{LayerInput, WeightUse};
pub use observed::{Components, Observed, Statistic};
pub use option::{OptionInfo, SchemeOptions};
pub use pipeline::{Initialization, from_recipe, initialize, quantised_base};
pub use recipe::LayerRecipe;
pub use registry::{register, registry, scheme_option, scheme_options};
pub use spec::SchemeSpec;
