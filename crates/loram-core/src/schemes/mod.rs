//! How adapters are initialised: one file for each scheme, listed in the [`registry`].

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

mod corda;
mod eva;
mod gaussian;
mod init_ab;
mod loftq;
mod lora;
mod lora_alpha;
mod lora_ga;
mod loram;
mod mica;
mod milora;
mod olora;
mod orthogonal;
mod pissa;
mod rlmo;
mod rlpo;

pub use context::Context;
pub use eva::{principal_components, redistribute_ranks};
pub use factors::{Scale, SchemeFactors};
pub use info::{Behaviour, SchemeInfo};
pub use input::{LayerInput, WeightUse};
pub use observed::{Components, Observed, Statistic};
pub use option::{OptionInfo, SchemeOptions};
pub use pipeline::{Initialization, from_recipe, initialize, quantised_base};
pub use recipe::LayerRecipe;
pub use registry::{register, registry, scheme_option, scheme_options};
pub use spec::SchemeSpec;
