//! The mathematics of LoRA adapters, on plain slices: no files, no tensor framework.
//!
//! Notation: a linear layer has a weight `W` of shape (n, m) = (out_features, in_features), row-major; an adapter of rank
//! r adds s·B·A with B (n, r) and A (r, m). ν\[X\] = ‖X‖²_F / entries is the magnitude of a matrix.
//!
//! [`initialize`] makes A₀ and B₀ of a layer from a [`SchemeSpec`], the weight (or what else is known of the layer:
//! [`LayerInput`]), the layer's [`LayerPlan`] and a seed; [`plan_layers`] makes the plans from a [`LoraConfig`], by PEFT's
//! rules. A scheme of another crate is a [`SchemeInfo`], added by [`register`].
//!
//! Everything here is deterministic: the number of threads changes no bit of any result. LoRAM's factors, and those of
//! schemes that read nothing but the shape, have the same bits on every machine, given β.

mod basis;
mod config;
mod convert;
pub mod equivalence;
mod error;
mod factors;
mod first_step;
mod gain;
pub mod growth;
mod lanczos;
mod linalg;
pub mod magnitude;
mod panel;
mod patterns;
mod quantise;
mod randomised;
mod residual;
mod rng;
mod schemes;
mod similar;
mod sketch;
mod step_size;
mod targets;
mod weight;

pub use basis::{Basis, sines};
pub use config::{LoraConfig, OneOrMany, TargetModules, TokenIndices, module_ends_with, unsupported_keys};
pub use convert::add_product;
pub use error::{Error, Result};
pub use factors::Factors;
pub use first_step::FirstStep;
pub use gain::{Gain, GainStatistic, exact as exact_gain, log_gain, singular_values, sketch_gain, sketch_spectrum};
pub use lanczos::End;
pub use linalg::Svd;
pub use quantise::Quantizer;
pub use residual::residual;
pub use rng::Stream;
pub use schemes::{
    Behaviour, Components, Context, Initialization, LayerInput, LayerRecipe, Observed, OfLayer, OptionInfo, Scale,
    SchemeFactors, SchemeInfo, SchemeOptions, SchemeSpec, Statistic, Tracked, WeightUse, from_recipe, initialize,
    option, principal_components, quantised_base, redistribute_ranks, register, registry, scheme_option,
    scheme_options,
};
pub use similar::similar_name;
pub use step_size::StepSize;
pub use targets::{LayerPlan, LinearInfo, check_targets, plan_layers};
pub use weight::{
    BFloat16, BlockScales, Float16, Float32, Float64, FourBit, FourBitOptions, FourBitParts, FourBitType, GroupTables,
    Grouped, Mxfp4, NestedScales, Q2K, Q3K, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0, RowOrder, ScaledFloat8,
    SharedBytes, StoredWeight, Sums, ValueType, WeightBytes, WeightElement, WeightFormat, dynamic_map, nested_scales,
    quantise_4bit,
};
