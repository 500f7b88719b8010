//! The order of learning rates, the best one first.

use crate::grid::Score;
use crate::scores::Scores;
use std::cmp::Ordering;

/// The figures that learning rates are chosen by, on the selection part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The score.
    pub score: f64,
    /// The loss, which decides between equal scores: short runs of a classifier may all have the score of guessing while their
    /// losses already differ.
    pub loss: f64,
}

impl Choice {
    /// The figures of a run; `None` if it diverged.
    pub fn of(scores: &Scores) -> Option<Choice> {
        let loss = scores.selection.as_ref()?.loss;
        Some(Choice { score: scores.selection_score()?, loss })
    }

    /// The means over runs; `None` without runs.
    pub fn mean(choices: &[Choice]) -> Option<Choice> {
        let mean = |of: fn(&Choice) -> f64| crate::stats::mean(&choices.iter().map(of).collect::<Vec<_>>());
        (!choices.is_empty()).then(|| Choice { score: mean(|c| c.score), loss: mean(|c| c.loss) })
    }

    /// `Less` if `self` is better than `other`.
    pub fn cmp(&self, other: &Choice, score: &Score) -> Ordering {
        let (a, b) = (self.score, other.score);
        let by_score = match (a == b, score.more_is_better) {
            // also for 0 and −0
            (true, _) => Ordering::Equal,
            (false, true) => b.total_cmp(&a),
            (false, false) => a.total_cmp(&b),
        };
        by_score.then(self.loss.total_cmp(&other.loss))
    }
}

/// The same order, in which a run that diverged has no figures and comes last.
pub fn cmp(a: Option<Choice>, b: Option<Choice>, score: &Score) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.cmp(&b, score),
        _ => b.is_some().cmp(&a.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_decides_then_the_loss() {
        let c = |score, loss| Some(Choice { score, loss });
        let up = Score { name: "accuracy".into(), more_is_better: true };
        let down = Score { name: "mse".into(), more_is_better: false };
        for (a, b, score, want) in [
            (c(0.9, 0.7), c(0.8, 0.1), &up, Ordering::Less),
            (c(0.9, 0.7), c(0.8, 0.1), &down, Ordering::Greater),
            (c(0.0, 0.5), c(0.0, 0.6), &up, Ordering::Less),
            (c(0.0, 0.5), c(0.0, 0.6), &down, Ordering::Less),
            (c(-0.0, 0.5), c(0.0, 0.6), &up, Ordering::Less),
            (c(0.0, f64::NAN), c(0.0, 0.6), &up, Ordering::Greater),
            (c(0.0, 9.0), None, &up, Ordering::Less),
            (None, None, &up, Ordering::Equal),
        ] {
            assert_eq!(cmp(a, b, score), want, "{a:?} {b:?}");
            assert_eq!(cmp(b, a, score), want.reverse(), "{b:?} {a:?}");
        }
    }

    #[test]
    fn means_take_both() {
        let all = [Choice { score: 1.0, loss: 2.0 }, Choice { score: 2.0, loss: 6.0 }];
        assert_eq!(Choice::mean(&all), Some(Choice { score: 1.5, loss: 4.0 }));
        assert_eq!(Choice::mean(&[]), None);
    }
}
