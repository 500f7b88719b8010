//! A scheme with its options.

use super::info::{Behaviour, SchemeInfo};
use super::input::WeightUse;
use super::observed::Statistic;
use super::option::SchemeOptions;
use crate::targets::LayerPlan;
use crate::{Error, Result};

/// A scheme with its options, which were checked.
#[derive(Clone)]
pub struct SchemeSpec {
    info: &'static SchemeInfo,
    number: Option<usize>,
    options: SchemeOptions,
    tracked: Option<Box<SchemeSpec>>,
    behaviour: Behaviour,
}

impl SchemeSpec {
    /// A scheme that need not be registered. Errors: an option that the scheme does not take, a value that an option does
    /// not take, a name that ends in `-k` (its number is part of the name: register it and use [`SchemeSpec::parse`]).
    pub fn new(info: &'static SchemeInfo, options: &SchemeOptions) -> Result<SchemeSpec> {
        if info.family().is_some() {
            let what = format!("`{}` stands for a family of schemes: register it and name one of them", info.name);
            return Err(Error::setting("init_lora_weights", what));
        }
        SchemeSpec::build(info, None, options.clone(), None)
    }

    /// The spec of checked parts; options at their default are dropped, so that equal specs have equal options.
    pub(super) fn build(
        info: &'static SchemeInfo,
        number: Option<usize>,
        mut options: SchemeOptions,
        tracked: Option<SchemeSpec>,
    ) -> Result<SchemeSpec> {
        options.check_scales()?;
        for (key, value) in std::mem::take(&mut options.values) {
            let option = info
                .option(&key)
                .ok_or_else(|| Error::setting(&key, format!("is not an option of `{}`", info.name)))?;
            let value = option.parse(&value)?;
            if value != option.default_value() {
                options.values.insert(key, value);
            }
        }
        let tracked_behaviour = tracked.as_ref().map(SchemeSpec::behaviour);
        let behaviour = info.behaviour_with.map_or_else(|| info.behaviour(), |with| with(&options, tracked_behaviour));
        Ok(SchemeSpec { info, number, options, tracked: tracked.map(Box::new), behaviour })
    }

    /// The scheme.
    pub fn info(&self) -> &'static SchemeInfo {
        self.info
    }

    /// The number in the name, for schemes whose name ends in `-k`.
    pub fn number(&self) -> Option<usize> {
        self.number
    }

    /// The options; those of the scheme that are at their default are left out.
    pub fn options(&self) -> &SchemeOptions {
        &self.options
    }

    /// The same scheme with A₀ and B₀ multiplied by these instead of the options' scales. Errors: a scale that is not above
    /// 0.
    pub fn with_scales(&self, init_scale_a: f64, init_scale_b: f64) -> Result<SchemeSpec> {
        let options = SchemeOptions { init_scale_a, init_scale_b, ..self.options.clone() };
        options.check_scales()?;
        Ok(SchemeSpec { options, ..self.clone() })
    }

    /// The scheme whose magnitude this one follows.
    pub(super) fn tracked(&self) -> Option<&SchemeSpec> {
        self.tracked.as_deref()
    }

    /// The input that it reads with these options, and how it depends on the scaling.
    pub fn behaviour(&self) -> Behaviour {
        self.behaviour
    }

    /// A weight is read once at most, and nothing else is needed: then it need not lie in memory
    /// ([`LayerInput::read`](super::LayerInput::read)).
    pub fn one_pass(&self) -> bool {
        self.statistic() == Statistic::None && self.behaviour.weight <= WeightUse::Sketch
    }

    /// The shape of a weight and the sums Σx and Σx² of its values are all that is read
    /// ([`LayerInput::sums`](super::LayerInput::sums)).
    pub fn sums_suffice(&self) -> bool {
        self.statistic() == Statistic::None && self.behaviour.weight <= WeightUse::Sums
    }

    /// A₀ and B₀ are each proportional to 1/√s, with these options.
    pub fn over_scaling(&self) -> bool {
        self.behaviour.over_scaling
    }

    /// The statistic that is needed from a run of the model on calibration data, with these options.
    pub fn statistic(&self) -> Statistic {
        self.behaviour.statistic
    }

    /// The number of principal components of the layer's inputs to compute, for [`Statistic::InputCovariance`].
    pub fn components(&self, plan: &LayerPlan) -> usize {
        self.info.components.map_or(plan.r, |count| count(&self.options, plan))
    }

    /// The scheme sets its own `lora_alpha`, and with it the scaling.
    pub fn sets_scaling(&self) -> bool {
        self.info.own_scaling.is_some()
    }

    /// The plan with the scaling that the scheme sets itself; as it is for other schemes.
    pub fn adjust(&self, plan: &LayerPlan) -> Result<LayerPlan> {
        self.info.own_scaling.map_or_else(|| Ok(plan.clone()), |own| own(plan))
    }
}

impl std::fmt::Display for SchemeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.info.family(), self.number) {
            (Some(family), Some(number)) => write!(f, "{family}{number}"),
            _ => f.write_str(self.info.name),
        }
    }
}

impl std::fmt::Debug for SchemeSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SchemeSpec({self}, {:?})", self.options)
    }
}

impl PartialEq for SchemeSpec {
    fn eq(&self, other: &SchemeSpec) -> bool {
        self.info.name == other.info.name && self.number == other.number && self.options == other.options
    }
}
