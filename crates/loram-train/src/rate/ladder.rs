//! A line search over learning rates: a ladder of rates, the loss after one step at each, and a parabola through the lowest.

use crate::Result;
use serde::{Deserialize, Serialize};

/// Rungs in a decade.
const PER_DECADE: f64 = 3.0;
/// The furthest rung from the first one, upwards and downwards.
const FURTHEST: i32 = 15;

/// A learning rate, and the loss after one step at it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rung {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Mean loss on the judging records; `None` if it is not finite.
    pub loss: Option<f64>,
}

impl Rung {
    /// The loss in an order in which one that is not finite is the worst.
    fn height(&self) -> f64 {
        self.loss.unwrap_or(f64::INFINITY)
    }
}

/// The rungs of a search, from the lowest rate to the highest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ladder {
    /// Loss without the step.
    pub before: f64,
    /// Rates a third of a decade apart, with their losses.
    pub rungs: Vec<Rung>,
}

impl Ladder {
    /// Climbs from `first` until the loss has risen twice in a row, and descends from it where it is the best so far.
    ///
    /// # Errors
    /// Those of `loss`, which gets a learning rate.
    pub fn climb(first: f64, before: f64, mut loss: impl FnMut(f64) -> Result<f64>) -> Result<Ladder> {
        let mut at = |k: i32| -> Result<Rung> {
            let learning_rate = first * 10f64.powf(f64::from(k) / PER_DECADE);
            Ok(Rung { learning_rate, loss: Some(loss(learning_rate)?).filter(|x| x.is_finite()) })
        };
        let mut rungs = vec![at(0)?];
        let mut rises = 0;
        for k in 1..=FURTHEST {
            let rung = at(k)?;
            let rose = rung.height() >= rungs[rungs.len() - 1].height();
            rises = if rose { rises + 1 } else { 0 };
            rungs.push(rung);
            if rises == 2 {
                break;
            }
        }
        let mut ladder = Ladder { before, rungs };
        for k in 1..=FURTHEST {
            if ladder.best().is_some_and(|i| i > 0) {
                break;
            }
            ladder.rungs.insert(0, at(-k)?);
        }
        Ok(ladder)
    }

    /// The number of the rung with the lowest loss, if that is below the loss without the step.
    fn best(&self) -> Option<usize> {
        let heights = self.rungs.iter().map(Rung::height).enumerate();
        let best = heights.min_by(|a, b| a.1.total_cmp(&b.1))?;
        (best.1 < self.before).then_some(best.0)
    }

    /// The learning rate at which the loss is lowest: the vertex of the parabola in ln η through the lowest rung and its
    /// neighbours. `None` where no step lowers the loss.
    pub fn optimum(&self) -> Option<f64> {
        let best = self.best()?;
        let middle = self.rungs[best];
        let (Some(below), Some(above)) = (best.checked_sub(1).map(|i| self.rungs[i]), self.rungs.get(best + 1)) else {
            return Some(middle.learning_rate);
        };
        let (left, right) = (below.height() - middle.height(), above.height() - middle.height());
        // half a rung at most, since the middle is the lowest of three
        let shift = match right.is_finite() && left.is_finite() && left + right > 0.0 {
            true => 0.5 * (left - right) / (left + right),
            false => 0.0,
        };
        Some(middle.learning_rate * 10f64.powf(shift / PER_DECADE))
    }

    /// The largest rate of a rung whose step lowers the loss.
    pub fn highest_safe(&self) -> Option<f64> {
        self.rungs.iter().rev().find(|r| r.height() < self.before).map(|r| r.learning_rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loss whose best rate is `best`, parabolic in ln η around it, and flat far below.
    fn bowl(best: f64) -> impl Fn(f64) -> f64 {
        move |rate: f64| {
            let x = (rate / best).ln();
            2.0 - (-x * x / 8.0).exp() + if rate > 30.0 * best { f64::INFINITY } else { 0.0 }
        }
    }

    #[test]
    fn the_optimum_is_found_from_below_from_above_and_nearby() {
        for best in [1e-6, 3.3e-4, 1e-3, 2.2e-3, 0.4] {
            let (mut calls, loss) = (0, bowl(best));
            let ladder = Ladder::climb(1e-3, 2.0, |rate| {
                calls += 1;
                Ok(loss(rate))
            })
            .unwrap();
            let found = ladder.optimum().unwrap();
            assert!((found / best).ln().abs() < 0.05, "{best}: {found} from {ladder:?}");
            assert_eq!(calls, ladder.rungs.len());
            assert!(ladder.rungs.is_sorted_by(|a, b| a.learning_rate < b.learning_rate));
            assert!(ladder.highest_safe().unwrap() >= found / 2.2);
        }
    }

    #[test]
    fn two_rises_end_the_climb_and_one_does_not() {
        let losses = [1.9, 1.8, 1.85, 1.7, 1.9, 2.5, 3.0];
        let mut k = 0;
        let ladder = Ladder::climb(1.0, 2.0, |_| {
            k += 1;
            Ok(losses[k - 1])
        })
        .unwrap();
        assert_eq!((ladder.rungs.len(), ladder.rungs[3].loss), (6, Some(1.7)));
        assert!((ladder.highest_safe().unwrap().log10() * 3.0 - 4.0).abs() < 1e-9, "the rung of 1.9");
    }

    #[test]
    fn without_a_step_that_helps_there_is_no_optimum() {
        let ladder = Ladder::climb(1e-3, 2.0, |rate| Ok(2.0 + rate)).unwrap();
        assert_eq!((ladder.optimum(), ladder.highest_safe()), (None, None));
        let ladder = Ladder::climb(1e-3, 2.0, |_| Ok(f64::NAN)).unwrap();
        assert_eq!(ladder.optimum(), None);
        assert!(ladder.rungs.iter().all(|r| r.loss.is_none()));
    }
}
