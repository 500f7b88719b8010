//! Notices runs that no further step can save: a model that no longer reacts, or a loss far above its start for long.

use serde::{Deserialize, Serialize};

/// Steps whose losses tell the start.
const FIRST: usize = 10;
/// Steps in a row without a gradient until the model counts as dead.
const DEAD: usize = 3;
/// Least number of steps in a row far above the start until the run counts as diverged; in long runs, a tenth of them.
const ABOVE: usize = 100;
/// Weight of a step in the running mean of the loss.
const WEIGHT: f64 = 0.05;

/// Running figures of a run's losses, as part of its state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Health {
    /// Losses of the first steps.
    first: Vec<f64>,
    /// Loss of the last step.
    last: f64,
    /// Running mean of the loss.
    mean: f64,
    /// Steps in a row in which that was far above the start.
    above: usize,
    /// Steps in a row without a gradient.
    dead: usize,
    /// Newest step at which a checkpoint was saved and the run was well.
    pub last_good: Option<usize>,
}

impl Health {
    /// Takes the mean loss and the gradient norm of a step. `guess` is the loss of a uniform guess, `before` that of the
    /// evaluation before training. Returns why the run should stop.
    pub fn observe(
        &mut self,
        loss: f64,
        norm: f64,
        guess: Option<f64>,
        before: Option<f64>,
        total_steps: usize,
    ) -> Option<String> {
        self.last = loss;
        self.dead = if norm < 1e-12 && loss > 1e-3 { self.dead + 1 } else { 0 };
        if self.dead >= DEAD {
            let of_guess = guess.filter(|g| (loss / g - 1.0).abs() < 0.01);
            let like = of_guess.map_or(String::new(), |_| ", that of a uniform guess".into());
            return Some(format!(
                "the loss is {loss:.4}{like}, and all gradients are 0: no further step can change it"
            ));
        }
        if self.first.len() < FIRST {
            self.first.push(loss);
            self.mean = self.first.iter().sum::<f64>() / self.first.len() as f64;
            return None;
        }
        self.mean += WEIGHT * (loss - self.mean);
        let start = median(&self.first).max(before.unwrap_or(f64::MIN));
        self.above = if is_far_above(self.mean, start) { self.above + 1 } else { 0 };
        (self.above >= ABOVE.max(total_steps / 10)).then(|| {
            format!(
                "the mean loss of the last steps is {:.4}, for {} steps far above the {start:.4} at the start",
                self.mean, self.above
            )
        })
    }

    /// True if nothing speaks against the weights of now.
    pub fn is_good(&self) -> bool {
        let start = if self.first.len() < FIRST { self.first.first().copied() } else { Some(median(&self.first)) };
        self.above == 0 && self.dead == 0 && start.is_none_or(|start| !is_far_above(self.last, start))
    }
}

fn is_far_above(loss: f64, start: f64) -> bool {
    loss > 1.5 * start + 0.5
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps until the run is stopped, and why.
    fn stops(losses: impl Iterator<Item = (f64, f64)>, total: usize) -> Option<(usize, String)> {
        let mut health = Health::default();
        losses.enumerate().find_map(|(i, (loss, norm))| {
            Some((i + 1, health.observe(loss, norm, Some(512f64.ln()), Some(1.4), total)?))
        })
    }

    #[test]
    fn a_model_without_gradients_is_dead() {
        let losses = [(1.4, 2.0), (3.0, 9.0)].into_iter().chain(std::iter::repeat_n((512f64.ln(), 0.0), 20));
        let (step, why) = stops(losses, 100).unwrap();
        assert_eq!(step, 5);
        assert!(why.contains("6.2383") && why.contains("uniform guess"), "{why}");
        assert_eq!(stops(std::iter::repeat_n((1e-9, 0.0), 50), 100), None, "nothing is left to learn");
    }

    #[test]
    fn a_loss_far_above_the_start_for_long_is_divergence() {
        let rises = |n: usize| (0..12).map(|_| (1.4, 1.0)).chain(std::iter::repeat_n((8.0, 1.0), n));
        let (step, why) = stops(rises(300), 400).unwrap();
        assert!((112..150).contains(&step) && why.contains("1.4"), "{step} {why}");
        assert!(stops(rises(300), 4000).is_none(), "a longer run gets more time");
        let spike = rises(60).chain((0..300).map(|_| (1.3, 1.0)));
        assert_eq!(stops(spike, 400), None, "it came back");
        let slow = (0..400).map(|i| (1.4 - i as f64 * 1e-3, 1.0));
        assert_eq!(stops(slow, 400), None);
    }

    #[test]
    fn weights_after_a_jump_of_the_loss_are_not_good() {
        let mut health = Health::default();
        let mut good = |loss: f64| {
            assert_eq!(health.observe(loss, 1.0, None, None, 100), None);
            health.is_good()
        };
        assert!(good(1.4) && good(1.6) && !good(9.0) && good(1.5));
    }

    #[test]
    fn it_survives_a_file() {
        let mut health = Health::default();
        (0..30).for_each(|i| drop(health.observe(1.0 / (i + 3) as f64, 1.0, None, None, 100)));
        let text = serde_json::to_string(&health).unwrap();
        assert_eq!(serde_json::from_str::<Health>(&text).unwrap(), health);
    }
}
