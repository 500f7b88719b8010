//! The peak learning rate of a run, where the configuration has `auto` or a step size in place of a number.
//!
//! The search, in ten lines:
//!
//! 1. Put adapters with LoRAM's initial factors on the model, whatever the run's scheme: A and B both move in their first step.
//! 2. Compute the gradient of the mean loss of some training records.
//! 3. From a rate that moves the weights by 0.2 % of their norm, climb a ladder of rates a third of a decade apart.
//! 4. At each rung take one step of the run's own optimiser from the start, and measure the loss on other training records.
//! 5. Stop when the loss has risen twice in a row; descend where the first rung is the best.
//! 6. η₁ is the vertex of the parabola through the best rung and its neighbours, in ln η.
//! 7. A run of `loram` has the peak rate 1.4·η₁ (0.5·η₁ with a new head), but no more than the highest rung that lowers the loss,
//!    and none whose step moves more than 6 % of the norm.
//! 8. D is the share of the weights' norm that its first step moves ([`StepSize`]).
//! 9. A run of another scheme has the rate at which its D is the same.
//!
//! (`search`: 1 to 4, 7; `ladder`: 3, 5, 6; `sizes`: 8.)

mod cache;
mod ladder;
mod search;
mod sizes;

pub use cache::cache_folder;
pub use ladder::{Ladder, Rung};
pub use search::RateSearch;
pub(crate) use search::{Job, OF_LIKELIHOOD};

use crate::adapt::Adaptation;
use crate::base::Base;
use crate::config::{LearningRate, OptimKind, TrainConfig};
use crate::observer::Observer;
use crate::{Error, Result};
use loram_core::StepSize;
use loram_nn::Model;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// How the peak learning rate of a run came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateOrigin {
    /// The configuration has the number.
    Given,
    /// The configuration has a step size.
    StepSize,
    /// A line search found it (`auto`).
    Search,
}

/// The peak learning rate of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FoundRate {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Its origin.
    pub origin: RateOrigin,
    /// The factor of the configuration on the rate of the search (`auto*F`); `None`: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// D at that rate: the share of the weights' norm that the first step moves; `None` where it was not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_size: Option<f64>,
    /// The line search, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<RateSearch>,
    /// True if the search was made by an earlier run on the same model, data and settings.
    #[serde(default)]
    pub from_cache: bool,
}

/// A search that was made, now or before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Searched {
    pub search: RateSearch,
    pub from_cache: bool,
}

impl Job<'_> {
    /// The result of an earlier search in the folder `cache`.
    pub fn known(&self, cache: &Path) -> Result<Option<Searched>> {
        let search = cache::key(self)?.and_then(|key| cache::read(cache, &key));
        Ok(search.map(|search| Searched { search, from_cache: true }))
    }

    /// The search, or the result of an earlier one in the folder `cache`.
    pub fn searched(&self, cache: Option<&Path>, observer: &mut dyn Observer) -> Result<Searched> {
        let key = if cache.is_some() { cache::key(self)? } else { None };
        let place = cache.zip(key.as_deref());
        if let Some(search) = place.and_then(|(folder, key)| cache::read(folder, key)) {
            return Ok(Searched { search, from_cache: true });
        }
        let search = self.search(observer)?;
        if let Some((folder, key)) = place {
            cache::write(folder, key, &search);
        }
        Ok(Searched { search, from_cache: false })
    }
}

impl FoundRate {
    /// A number of the configuration.
    pub fn given(learning_rate: f64) -> FoundRate {
        let origin = RateOrigin::Given;
        FoundRate { learning_rate, origin, factor: None, step_size: None, search: None, from_cache: false }
    }

    /// The rate of a run whose model is ready. `adapters` are those on the model; `None` in full fine-tuning.
    ///
    /// # Errors
    /// A step size that no rate has.
    pub(crate) fn of(
        config: &TrainConfig,
        base: &Base,
        model: &Model,
        adapters: Option<&Adaptation>,
        searched: Option<Searched>,
    ) -> Result<FoundRate> {
        let given = FoundRate::given;
        let (search, from_cache) = searched.map_or((None, false), |s| (Some(s.search), s.from_cache));
        match (config.learning_rate, search) {
            (LearningRate::Value(rate), search) => Ok(FoundRate { search, from_cache, ..given(rate) }),
            (LearningRate::StepSize(_), _) if config.optim == OptimKind::Sgd => Err(Error::Config(
                "learning_rate: step sizes are for adamw, whose steps do not depend on the size of the gradient: give a \
                 number or auto"
                    .into(),
            )),
            (LearningRate::StepSize(size), _) => {
                let learning_rate = sizes(config, base, model, adapters)?.rate(size).ok_or_else(|| nothing_moves(config))?;
                Ok(FoundRate { origin: RateOrigin::StepSize, step_size: Some(size), ..given(learning_rate) })
            }
            (rate @ (LearningRate::Auto | LearningRate::AutoTimes(_)), Some(search)) => {
                let factor = rate.times_auto().unwrap_or(1.0);
                let own = adapters.filter(|_| search.scheme == "loram" && !config.scheme().is_ok_and(|s| s.behaviour().first_step));
                let learning_rate = match own {
                    // the steps of the search were those of this run
                    None => search.learning_rate,
                    Some(_) => own_rate(config, &search, &sizes(config, base, model, adapters)?)?,
                };
                // under SGD it is no share of the norm
                let step_size = Some(search.step_size).filter(|_| config.optim == OptimKind::AdamW && factor == 1.0);
                let origin = RateOrigin::Search;
                let learning_rate = factor * learning_rate;
                let factor = Some(factor).filter(|f| *f != 1.0);
                Ok(FoundRate { origin, factor, step_size, search: Some(search), from_cache, ..given(learning_rate) })
            }
            (LearningRate::Auto | LearningRate::AutoTimes(_), None) => unreachable!("auto is searched for"),
        }
    }

    /// How far a rate that was given is from this one, where that is more than a decade: "1.3 decades below".
    pub fn far_from(&self, given: f64) -> Option<String> {
        let decades = (given / self.learning_rate).log10();
        let direction = if decades > 0.0 { "above" } else { "below" };
        (given > 0.0 && decades.abs() > 1.0).then(|| format!("{:.1} decades {direction}", decades.abs()))
    }

    /// One line about where the rate comes from; `None` for a number that was given.
    pub fn text(&self) -> Option<String> {
        let percent = |x: f64| format!("{:.2} % of the weights' norm", 100.0 * x);
        let size = self.step_size.map_or(String::new(), |d| format!(", a first step of {}", percent(d)));
        match (self.origin, &self.search) {
            (RateOrigin::Search, Some(s)) => {
                let cost = match self.from_cache {
                    true => "found by an earlier run".into(),
                    false => format!("found in {:.1} s", s.seconds),
                };
                let times = self.factor.map_or(String::new(), |f| format!("*{f}"));
                Some(format!(
                    "learning_rate: auto{times} is {:.3e}{size} ({cost}, {} rates)",
                    self.learning_rate,
                    s.ladder.rungs.len()
                ))
            }
            (RateOrigin::StepSize, _) => Some(format!("learning_rate is {:.3e}{size}", self.learning_rate)),
            _ => None,
        }
    }

    /// A warning where the search found no step that helps.
    pub fn warning(&self) -> Option<String> {
        let search = self.search.as_ref().filter(|s| self.origin == RateOrigin::Search && s.optimum.is_none())?;
        Some(format!(
            "learning_rate: auto: no single step lowered the loss on {} other records ({:.4}), so the rate is that of a usual \
             step: give learning_rate if the run learns nothing",
            search.loss_records, search.ladder.before
        ))
    }
}

fn sizes(config: &TrainConfig, base: &Base, model: &Model, adapters: Option<&Adaptation>) -> Result<StepSize> {
    match adapters {
        Some(adapters) => sizes::of_adapters(config, base, model, adapters),
        None => sizes::of_weights(model),
    }
}

/// The rate at which the run's own adapters move the weights as those of the search would.
fn own_rate(config: &TrainConfig, search: &RateSearch, own: &StepSize) -> Result<f64> {
    own.rate(search.step_size).ok_or_else(|| nothing_moves(config))
}

fn nothing_moves(config: &TrainConfig) -> Error {
    Error::Config(format!(
        "learning_rate is {}, but no adapted layer of the model moves in a first step: give a number",
        config.learning_rate
    ))
}
