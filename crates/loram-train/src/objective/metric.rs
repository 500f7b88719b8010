//! The description of a metric.

/// A figure of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Name in configurations and files.
    pub name: &'static str,
    /// Name in tables and reports.
    pub title: &'static str,
    /// Name on a line of progress; `None` leaves it out, because another metric says the same.
    pub short: Option<&'static str>,
    /// True for shares of 1, which are shown in percent.
    pub percent: bool,
    /// True when more is better: the default of `greater_is_better`.
    pub higher_is_better: bool,
    /// True for figures over tokens, false for figures over examples.
    pub per_token: bool,
    /// True for metrics that need the figures of every example: comparisons have them, evaluations during training do not.
    pub of_examples: bool,
}

impl Metric {
    /// A metric over examples of which more is better.
    pub const fn new(name: &'static str, title: &'static str, short: &'static str) -> Metric {
        Metric {
            name,
            title,
            short: Some(short),
            percent: false,
            higher_is_better: true,
            per_token: false,
            of_examples: false,
        }
    }

    /// The mean loss, which every objective has.
    pub const LOSS: Metric = Metric { higher_is_better: false, ..Metric::new("loss", "loss", "loss") };
}
