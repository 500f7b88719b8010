//! Contrastive preference optimisation (2401.08417) and its kin SimPO (2405.14734): margins of log-probabilities without a
//! reference.

use super::numeric::{log_sigmoid, sigmoid};
use super::pairs::{self, Formula, Likelihood, Pair, PairLoss, of_pairs};
use crate::Result;
use crate::objective::definition::{Objective, Pass};
use crate::objective::settings::LossSettings;
use loram_io::data::Example;
use loram_nn::{Loss, Model};
use std::sync::Arc;

/// Prefer answers without a reference, and learn the chosen ones (`cpo`).
#[derive(Debug)]
pub struct Cpo;

/// Prefer answers by the mean log-probability of their tokens (`simpo`): `cpo` with `loss_type: simpo` and `cpo_alpha: 0`.
#[derive(Debug)]
pub struct SimPo;

const LOSSES: [&str; 4] = ["sigmoid", "hinge", "ipo", "simpo"];

/// A loss of the difference of both answers' log-probabilities.
#[derive(Debug)]
struct Margin {
    kind: &'static str,
    weight: f64,
    settings: LossSettings,
}

impl Formula for Margin {
    fn losses(&self, pairs: &[Pair]) -> Vec<PairLoss> {
        let LossSettings { beta, label_smoothing, simpo_gamma, .. } = self.settings;
        let means = matches!(self.kind, "ipo" | "simpo");
        let of = |p: &Pair| {
            let logps = if means { p.means() } else { p.logps };
            let per = if means { p.tokens.map(|n| n.max(1.0)) } else { [1.0; 2] };
            let target = if self.kind == "simpo" { simpo_gamma / beta } else { 0.0 };
            let x = logps[0] - logps[1] - target;
            let (loss, slope) = match self.kind {
                "hinge" => ((1.0 - beta * x).max(0.0), if beta * x < 1.0 { -beta } else { 0.0 }),
                "ipo" => ((x - 0.5 / beta).powi(2), 2.0 * (x - 0.5 / beta)),
                _ => smoothed(beta, x, label_smoothing),
            };
            PairLoss {
                loss: self.weight * loss,
                slopes: [self.weight * slope / per[0], -self.weight * slope / per[1]],
                rewards: logps.map(|l| beta * l),
                logps,
            }
        };
        pairs.iter().map(of).collect()
    }
}

/// −(1 − ε)·log σ(βx) − ε·log σ(−βx) and its derivative with respect to x.
pub(super) fn smoothed(beta: f64, x: f64, epsilon: f64) -> (f64, f64) {
    let z = beta * x;
    let loss = -(1.0 - epsilon) * log_sigmoid(z) - epsilon * log_sigmoid(-z);
    (loss, beta * (epsilon * sigmoid(z) - (1.0 - epsilon) * sigmoid(-z)))
}

fn losses(passes: &[Pass<'_>], kind: (&'static str, f64), alpha: f64, s: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
    let formula = Margin { kind: kind.0, weight: kind.1, settings: s.clone() };
    let likelihood = Likelihood { weight: alpha, with_prompt: false };
    pairs::losses(passes, Arc::new(formula), likelihood, pairs::without_reference)
}

/// One loss, as TRL has it.
fn single(objective: &str, settings: &LossSettings) -> Result<(&'static str, f64)> {
    match settings.losses(objective, &LOSSES)?[..] {
        [one] => Ok(one),
        _ => Err(crate::Error::Config(format!("loss_type: the task {objective} takes one loss"))),
    }
}

impl Objective for Cpo {
    fn name(&self) -> &'static str {
        "cpo"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["loss_type", "beta", "label_smoothing", "simpo_gamma", "cpo_alpha"]
    }

    fn check(&self, settings: &LossSettings) -> Result<()> {
        single(self.name(), settings).map(drop)
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        losses(passes, single(self.name(), settings)?, settings.cpo_alpha, settings)
    }

    fn likely(&self, examples: &[Example]) -> Option<Vec<Example>> {
        pairs::chosen(examples)
    }

    of_pairs!(Cpo, pairs::METRICS_WITH_NLL);
}

impl Objective for SimPo {
    fn name(&self) -> &'static str {
        "simpo"
    }

    fn settings(&self) -> &'static [&'static str] {
        &["beta", "label_smoothing", "simpo_gamma"]
    }

    fn losses(&self, _: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        losses(passes, ("simpo", 1.0), 0.0, settings)
    }

    fn likely(&self, examples: &[Example]) -> Option<Vec<Example>> {
        pairs::chosen(examples)
    }

    of_pairs!(SimPo, pairs::METRICS);
}
