//! Compares two arms over the seeds and test examples that they share.

use crate::grid::Score;
use crate::run_record::RunRecord;
use crate::stats::{Interval, Observations, paired_bootstrap};
use loram_train::ExampleScores;
use serde::{Deserialize, Serialize};

/// The conclusion from the interval of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Better than the baseline.
    Better,
    /// No difference is established: the interval contains 0.
    Level,
    /// Worse than the baseline.
    Worse,
    /// None can be given yet: runs are missing that may change the choice of a learning rate.
    Open,
}

/// The difference of an arm's score from a baseline's.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Arm minus baseline.
    pub difference: Interval,
    /// The conclusion.
    pub verdict: Verdict,
    /// Number of seeds that both have.
    pub seeds: usize,
}

/// Compares the runs of two arms by seed; `None` if they share no seed, or there is nothing to resample. `open`: a learning rate
/// may still change, so that there is no verdict yet.
pub fn compare(score: &Score, a: &[&RunRecord], b: &[&RunRecord], open: bool) -> Option<Comparison> {
    let scored = |r: &&RunRecord| r.scores.test_score().is_some();
    let mut pairs: Vec<(&RunRecord, &RunRecord)> = Vec::new();
    for x in a.iter().copied().filter(|r| scored(r)) {
        let same = |y: &&RunRecord| y.scores.point.seed == x.scores.point.seed && scored(y);
        pairs.extend(b.iter().copied().find(same).map(|y| (x, y)));
    }
    let data = &pairs.first()?.0.scores.data;
    let same_data = pairs.iter().all(|(x, y)| x.scores.data == *data && y.scores.data == *data);
    let (of_a, of_b) = (pairs.iter().map(|p| p.0).collect::<Vec<_>>(), pairs.iter().map(|p| p.1).collect::<Vec<_>>());
    let difference = match (examples(&of_a), examples(&of_b)) {
        (Some(x), Some(y)) if same_data && x[0].len() == y[0].len() => {
            paired_bootstrap(Observations::Examples(&x, &score.name), Observations::Examples(&y, &score.name))
        }
        _ => {
            let scores = |list: &[&RunRecord]| list.iter().filter_map(|r| r.scores.test_score()).collect::<Vec<_>>();
            paired_bootstrap(Observations::Scores(&scores(&of_a)), Observations::Scores(&scores(&of_b)))
        }
    }?;
    let (low, high) = match score.more_is_better {
        true => (difference.low, difference.high),
        false => (-difference.high, -difference.low),
    };
    let verdict = match (low > 0.0, high < 0.0) {
        _ if open => Verdict::Open,
        (true, _) => Verdict::Better,
        (_, true) => Verdict::Worse,
        _ => Verdict::Level,
    };
    Some(Comparison { difference, verdict, seeds: pairs.len() })
}

/// The results for single examples, if all runs have them for the same number of examples.
fn examples<'a>(runs: &[&'a RunRecord]) -> Option<Vec<&'a ExampleScores>> {
    let all: Vec<&ExampleScores> = runs.iter().map(|r| r.scores.examples.as_ref()).collect::<Option<_>>()?;
    all.iter().all(|e| e.len() == all[0].len()).then_some(all)
}
