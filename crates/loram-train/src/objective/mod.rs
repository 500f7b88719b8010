//! Objectives: what a model is trained for. Everything about one objective is in one file: the records that it takes, their
//! targets, the loss, the metrics, and the head that it needs.
//!
//! To add an objective, write its file and add it to [`objectives`].

mod answers;
mod batches;
mod classification;
mod column;
mod definition;
mod entities;
mod files;
mod metric;
mod multi_label;
mod next_token;
mod preference;
mod regression;
mod settings;
mod token_classification;

pub use batches::{batch_and_loss, batches_and_losses};
pub use classification::Classification;
pub use column::{Column, ColumnType};
pub use definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, config_entries};
pub use metric::Metric;
pub use multi_label::MultiLabel;
pub use next_token::NextToken;
pub use preference::{Cpo, Dpo, Kto, Orpo, SimPo, add_reference};
pub use regression::Regression;
pub use settings::{Divergence, LossSettings};
pub use token_classification::TokenClassification;

use crate::metrics::Metrics;
use loram_io::data::Record;

/// All objectives. Where several could be meant, the last that fits is taken.
pub fn objectives() -> &'static [&'static dyn Objective] {
    &[&NextToken, &Classification, &Regression, &MultiLabel, &TokenClassification, &Kto, &SimPo, &Cpo, &Orpo, &Dpo]
}

/// The objective of this name or alias.
pub fn find(name: &str) -> Option<&'static dyn Objective> {
    objectives().iter().copied().find(|o| o.name() == name || o.aliases().contains(&name))
}

/// The objective that takes some of these records; `None` when no objective takes any.
pub fn of_records(records: &[Record]) -> Option<&'static dyn Objective> {
    objectives().iter().rev().copied().find(|o| records.iter().any(|r| o.takes(r)))
}

/// The objective that a model, or an adapter on it, was trained for.
pub fn of_model(trained: &Trained<'_>) -> &'static dyn Objective {
    *objectives().iter().rev().find(|o| o.trained(trained)).unwrap_or(&objectives()[0])
}

/// The metrics of all objectives, each once: those of which less is better, then the others.
pub fn metrics() -> Vec<Metric> {
    let mut all: Vec<Metric> = Vec::new();
    for m in objectives().iter().flat_map(|o| o.metrics()) {
        if !all.contains(m) {
            all.push(*m);
        }
    }
    all.sort_by_key(|m| m.higher_is_better);
    all
}

/// The metric of this name.
pub fn metric(name: &str) -> Option<Metric> {
    objectives().iter().flat_map(|o| o.metrics()).find(|m| m.name == name).copied()
}

impl Metrics {
    /// The loss, and the other metrics in their order, with what is known of each.
    pub fn described(&self) -> Vec<(Metric, f64)> {
        let others = self.others.iter().filter_map(|(name, v)| Some((metric(name)?, *v)));
        std::iter::once((Metric::LOSS, self.loss)).chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let mut names: Vec<&str> = Vec::new();
        for o in objectives() {
            for name in [o.name()].iter().chain(o.aliases()) {
                assert_eq!(find(name).unwrap(), *o);
                assert!(!names.contains(name), "{name} twice");
                names.push(name);
            }
            assert_eq!(o.metrics()[0], Metric::LOSS);
        }
        assert!(find("nothing").is_none());
    }

    #[test]
    fn metrics_are_unique_and_ordered() {
        let all = metrics();
        let names: Vec<&str> = all.iter().map(|m| m.name).collect();
        assert_eq!(names[..3], ["loss", "perplexity", "mse"]);
        assert!(all.is_sorted_by_key(|m| m.higher_is_better) && all[0] == Metric::LOSS);
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "two metrics are called {name}");
        }
    }
}
