//! The line search of a run: whether there is one, on which examples, and what is said of its result.

use crate::Result;
use crate::base::Base;
use crate::config::TrainConfig;
use crate::dataset::Dataset;
use crate::objective::{NextToken, Task};
use crate::observer::Level;
use crate::rate::{FoundRate, Job, OF_LIKELIHOOD};
use crate::report::Reporter;
use loram_io::data::Example;
use loram_nn::LoadOptions;

/// True if the run has a line search: for its learning rate, or for initial factors that follow its result.
pub(super) fn needs_search(config: &TrainConfig) -> Result<bool> {
    Ok(config.learning_rate.times_auto().is_some() || config.scheme()?.behaviour().takes_share)
}

/// The measure by which a line search judges rates: the training examples and their loss, or the likelihood of the better answers.
pub(super) enum SearchSet<'a> {
    Own(&'a Dataset),
    Likely(Vec<Example>),
}

impl<'a> SearchSet<'a> {
    pub fn new(train: &'a Dataset) -> SearchSet<'a> {
        train.objective.likely(&train.examples).map_or(SearchSet::Own(train), SearchSet::Likely)
    }

    /// The line search of a run.
    pub fn job(
        &'a self,
        config: &'a TrainConfig,
        base: &'a Base,
        options: &'a LoadOptions,
        max_tokens: Option<usize>,
    ) -> Job<'a> {
        let (task, examples, share) = match self {
            SearchSet::Own(train) => (train.task(), &train.examples[..], 1.0),
            SearchSet::Likely(examples) => (Task::new(&NextToken, &[]), &examples[..], OF_LIKELIHOOD),
        };
        Job { config, base, task, examples, share, options, max_tokens }
    }
}

pub(super) fn tell_about_rate(rate: &FoundRate, reporter: &mut Reporter<'_>) {
    if let Some(text) = rate.text() {
        reporter.message(Level::Info, text);
    }
    if let Some(text) = rate.warning() {
        reporter.message(Level::Warning, text);
    }
}
