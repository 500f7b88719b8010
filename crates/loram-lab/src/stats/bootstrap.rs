//! Bootstrap intervals over seeds and test examples.
//!
//! A score is the mean over seeds of a metric over test examples. A replicate draws, with replacement, as many examples
//! as there are and as many seeds as there are, and takes the score of these. The example draw is one for all seeds, and
//! in a paired comparison both draws are the same for both arms: their runs saw the same seeds and the same examples,
//! so that what they share cancels out. The interval is the range between the 2.5 % and 97.5 % quantiles of the
//! replicates. Without results for single examples, only seeds are drawn.

use super::summary::quantile;
use loram_train::ExampleScores;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Number of replicates for an interval.
pub const REPLICATES: usize = 2000;
/// Seed of all draws: the same runs give the same report.
const SEED: u64 = 0x10_4a3;

/// The units that each replicate draws with replacement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resampled {
    /// Seeds and test examples.
    SeedsAndExamples,
    /// Test examples, if there is one seed.
    Examples,
    /// Seeds, if there are no results for single examples.
    Seeds,
}

impl std::fmt::Display for Resampled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Resampled::SeedsAndExamples => "seeds and test examples",
            Resampled::Examples => "test examples",
            Resampled::Seeds => "seeds",
        })
    }
}

/// An estimate with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The estimate from all data.
    pub estimate: f64,
    /// 2.5 % quantile of the replicates.
    pub low: f64,
    /// 97.5 % quantile.
    pub high: f64,
    /// The resampled units.
    pub resampled: Resampled,
}

/// The results of an arm's runs, one entry for each seed.
#[derive(Debug, Clone, Copy)]
pub enum Observations<'a> {
    /// Results for every test example, and the name of the metric over them.
    Examples(&'a [&'a ExampleScores], &'a str),
    /// The metric itself.
    Scores(&'a [f64]),
}

impl Observations<'_> {
    pub(super) fn seeds(&self) -> usize {
        match self {
            Observations::Examples(runs, _) => runs.len(),
            Observations::Scores(scores) => scores.len(),
        }
    }

    pub(super) fn examples(&self) -> usize {
        match self {
            Observations::Examples(runs, _) => runs.first().map_or(0, |e| e.len()),
            Observations::Scores(_) => 0,
        }
    }

    /// The score over these seeds and examples; `None` if the metric is not defined on them.
    pub(super) fn score(&self, seeds: &[usize], examples: &[usize]) -> Option<f64> {
        let mut sum = 0.0;
        for &s in seeds {
            sum += match self {
                Observations::Examples(runs, metric) => runs[s].metric(metric, examples)?,
                Observations::Scores(scores) => scores[s],
            };
        }
        Some(sum / seeds.len() as f64)
    }
}

/// The interval of a score; `None` with one seed and no examples to resample.
pub fn bootstrap(of: Observations<'_>) -> Option<Interval> {
    replicate(of.seeds(), of.examples(), |seeds, examples| of.score(seeds, examples))
}

/// The interval of the score of `a` minus that of `b`. Both must have the same seeds in the same order, and the same test
/// examples; `None` if their numbers differ.
pub fn paired_bootstrap(a: Observations<'_>, b: Observations<'_>) -> Option<Interval> {
    if a.seeds() != b.seeds() || a.examples() != b.examples() {
        return None;
    }
    replicate(a.seeds(), a.examples(), |seeds, examples| Some(a.score(seeds, examples)? - b.score(seeds, examples)?))
}

fn replicate(seeds: usize, examples: usize, score: impl Fn(&[usize], &[usize]) -> Option<f64>) -> Option<Interval> {
    let resampled = match (seeds > 1, examples > 1) {
        (true, true) => Resampled::SeedsAndExamples,
        (false, true) if seeds == 1 => Resampled::Examples,
        (true, false) => Resampled::Seeds,
        _ => return None,
    };
    let all = |n: usize| (0..n).collect::<Vec<_>>();
    let estimate = score(&all(seeds), &all(examples))?;
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut draw = |n: usize| (0..n).map(|_| rng.random_range(0..n)).collect::<Vec<_>>();
    let mut found: Vec<f64> = (0..REPLICATES).filter_map(|_| score(&draw(seeds), &draw(examples))).collect();
    found.retain(|x| x.is_finite());
    if found.is_empty() {
        return None;
    }
    found.sort_by(f64::total_cmp);
    Some(Interval { estimate, low: quantile(&found, 0.025), high: quantile(&found, 0.975), resampled })
}
