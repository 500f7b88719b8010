//! An entry of the registry: what a scheme says of itself, and the functions that it consists of.

use super::context::Context;
use super::factors::{Scale, SchemeFactors};
use super::input::WeightUse;
use super::observed::Statistic;
use super::option::{OptionInfo, SchemeOptions};
use crate::Result;
use crate::growth::{InitMagnitude, LayerFacts};
use crate::targets::LayerPlan;

/// A function that computes something of one layer.
pub type OfLayer<T> = fn(&Context<'_>) -> Result<T>;

/// A scheme that another one follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// The option that names it, for messages.
    pub option: &'static str,
    /// Its name.
    pub scheme: String,
}

/// A scheme: help, validation, the tables of the documentation and the initialisation itself come from here.
///
/// A scheme of your own is a constant of this type:
///
/// ```
/// use loram_core::{SchemeFactors, SchemeInfo};
///
/// static ONES: SchemeInfo = SchemeInfo {
///     summary: "A of ones, B = 0",
///     ..SchemeInfo::new("ones", |layer| {
///         let (n, m, r) = layer.shape();
///         Ok(SchemeFactors::new(vec![1.0; r * m], vec![0.0; n * r]))
///     })
/// };
/// ```
///
/// [`SchemeSpec::new`](super::SchemeSpec::new) uses it as it is, and [`register`](super::register) makes it known by its
/// name: to configurations, and to adapters that are read.
#[derive(Clone, Copy)]
pub struct SchemeInfo {
    /// Name in a configuration; a trailing `-k` stands for a number.
    pub name: &'static str,
    /// Other names that are understood.
    pub aliases: &'static [&'static str],
    /// A₀ and B₀ in one line.
    pub summary: &'static str,
    /// Paper (arXiv number) or program.
    pub source: &'static str,
    /// How much of the weight is read.
    pub weight: WeightUse,
    /// B₀A₀ ≠ 0, so that the base changes to W − s·B₀A₀.
    pub changes_base: bool,
    /// A₀ and B₀ are each proportional to 1/√s, so that s·B₀A₀ is the same at every scaling s.
    pub over_scaling: bool,
    /// The statistic that is needed from a run of the model on calibration data.
    pub statistic: Statistic,
    /// Options of its own.
    pub options: &'static [OptionInfo],
    /// How the options change [`SchemeInfo::behaviour`]; gets the behaviour of the scheme that is tracked, if any.
    pub behaviour_with: Option<fn(&SchemeOptions, Option<Behaviour>) -> Behaviour>,
    /// The scheme whose magnitude the options ask to follow; its factors are [`Context::tracked`].
    pub tracks: Option<fn(&SchemeOptions) -> Option<Tracked>>,
    /// The plan with the scaling that the scheme sets itself.
    pub own_scaling: Option<fn(&LayerPlan) -> Result<LayerPlan>>,
    /// The number of principal components that are computed of a layer's inputs, at least r. With this, ranks move
    /// between layers to where a component explains most. For schemes with [`Statistic::InputCovariance`].
    pub components: Option<fn(&SchemeOptions, &LayerPlan) -> usize>,
    /// The magnitude of the initialisation by a formula; `None` from it where a fact is missing that the formula needs.
    pub magnitude: Option<fn(&SchemeOptions, &LayerFacts<'_>) -> Option<InitMagnitude>>,
    /// The base on which the factors are a plain adapter, where that is not W − s·B₀A₀.
    pub plain_base: Option<OfLayer<Vec<f32>>>,
    /// The factors from the numbers of a recipe, without the weight. A scheme that reads the shape alone needs no such
    /// function.
    pub recompute: Option<fn(&LayerPlan, u64, &Scale) -> SchemeFactors>,
    /// The initialisation.
    pub init: OfLayer<SchemeFactors>,
}

/// The input that a scheme reads, and how it depends on the scaling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// How much of the weight is read.
    pub weight: WeightUse,
    /// The statistic of calibration data that is needed.
    pub statistic: Statistic,
    /// A₀ and B₀ are each proportional to 1/√s.
    pub over_scaling: bool,
    /// The optimiser and the learning rates of the run are needed ([`SchemeOptions::first_step`]).
    pub first_step: bool,
    /// So is the size of that step ([`FirstStep::share`](crate::FirstStep)).
    pub takes_share: bool,
}

impl SchemeInfo {
    /// A scheme that reads the shape alone and whose B₀A₀ is 0, without options; everything else is set with
    /// `SchemeInfo { …, ..SchemeInfo::new(name, init) }`.
    pub const fn new(name: &'static str, init: OfLayer<SchemeFactors>) -> SchemeInfo {
        SchemeInfo {
            name,
            aliases: &[],
            summary: "",
            source: "",
            weight: WeightUse::Shape,
            changes_base: false,
            over_scaling: false,
            statistic: Statistic::None,
            options: &[],
            behaviour_with: None,
            tracks: None,
            own_scaling: None,
            components: None,
            magnitude: None,
            plain_base: None,
            recompute: None,
            init,
        }
    }

    /// The scheme reads values of the weight.
    pub fn needs_weight(&self) -> bool {
        self.weight > WeightUse::Shape
    }

    /// The part of the name before its number, for a name that ends in `-k`.
    pub fn family(&self) -> Option<&'static str> {
        self.name.strip_suffix('k').filter(|name| name.ends_with('-'))
    }

    /// The option of this key.
    pub fn option(&self, key: &str) -> Option<&'static OptionInfo> {
        self.options.iter().find(|o| o.key == key)
    }

    /// The keys of its options.
    pub fn option_keys(&self) -> Vec<&'static str> {
        self.options.iter().map(|o| o.key).collect()
    }

    /// The input that it reads at the default options, and how it depends on the scaling.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour {
            weight: self.weight,
            statistic: self.statistic,
            over_scaling: self.over_scaling,
            first_step: false,
            takes_share: false,
        }
    }
}

impl std::fmt::Debug for SchemeInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.source, self.summary)
    }
}
