//! Odds-ratio preference optimisation (2403.07691): the likelihood of the chosen sequence, and the odds of the chosen answer over
//! the rejected one. It has no reference.

use super::numeric::{log_sigmoid, log1mexp, sigmoid};
use super::pairs::{self, Formula, Likelihood, Pair, PairLoss, of_pairs};
use crate::Result;
use crate::objective::definition::{Objective, Pass};
use crate::objective::settings::LossSettings;
use loram_nn::{Loss, Model};
use std::sync::Arc;

/// Prefer answers without a reference model (`orpo`).
#[derive(Debug)]
pub struct Orpo;

/// −β·log σ(log odds) of mean log-probabilities.
#[derive(Debug)]
struct OddsRatio {
    beta: f64,
}

impl Formula for OddsRatio {
    fn losses(&self, pairs: &[Pair]) -> Vec<PairLoss> {
        let of = |p: &Pair| {
            let [c, r] = p.means();
            let log_odds = (c - r) - (log1mexp(c) - log1mexp(r));
            // d log(p/(1 − p))/d log p = 1/(1 − p)
            let toward = -self.beta * sigmoid(-log_odds);
            let slope = |mean: f64, tokens: f64| -1.0 / mean.exp_m1() / tokens.max(1.0);
            PairLoss {
                loss: -self.beta * log_sigmoid(log_odds),
                slopes: [toward * slope(c, p.tokens[0]), -toward * slope(r, p.tokens[1])],
                rewards: [self.beta * c, self.beta * r],
                logps: [c, r],
            }
        };
        pairs.iter().map(of).collect()
    }
}

impl Objective for Orpo {
    fn name(&self) -> &'static str {
        "orpo"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["beta"]
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        let likelihood = Likelihood { weight: 1.0, with_prompt: true };
        pairs::losses(passes, Arc::new(OddsRatio { beta: settings.beta }), likelihood, pairs::without_reference)
    }

    of_pairs!(Orpo, pairs::METRICS_WITH_NLL);
}
