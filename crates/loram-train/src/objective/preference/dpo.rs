//! Direct preference optimisation (2305.18290) and the losses that TRL's `DPOTrainer` offers beside it: how much likelier than
//! under a reference the chosen answer is, against the rejected one.

use super::cpo::smoothed;
use super::numeric::{log_sigmoid, sigmoid};
use super::pairs::{self, Formula, Likelihood, Pair, PairLoss, of_pairs};
use super::reference;
use crate::objective::definition::{Objective, Pass};
use crate::objective::settings::{Divergence, LossSettings};
use crate::{Error, Result};
use loram_io::data::Example;
use loram_nn::{Loss, Model};
use std::sync::Arc;

/// Prefer answers, measured against the model before training (`dpo`).
#[derive(Debug)]
pub struct Dpo;

const LOSSES: [&str; 15] = [
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
];

/// Losses of the difference of both scores, for which there are other divergences than the reverse KL.
const OF_SCORES: [&str; 8] = ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"];

/// A weighted sum of losses.
#[derive(Debug)]
struct Direct {
    losses: Vec<(&'static str, f64)>,
    settings: LossSettings,
}

impl Direct {
    /// The score of a log-ratio and its derivative: log t under the reverse KL, f′(t) in general (2309.16240), t = π/π_ref.
    fn score(&self, log_ratio: f64) -> (f64, f64) {
        let alpha = self.settings.f_alpha_divergence_coef - 1.0;
        match self.settings.f_divergence_type {
            Divergence::ForwardKl => (1.0 - (-log_ratio).exp(), (-log_ratio).exp()),
            Divergence::Js => (std::f64::consts::LN_2 + log_sigmoid(log_ratio), sigmoid(-log_ratio)),
            // exponents above 80 are cut off, as in TRL
            Divergence::Alpha if alpha.abs() >= 1e-6 => match alpha * log_ratio {
                x if x > 80.0 => ((80f64.exp() - 1.0) / alpha, 0.0),
                x => (x.exp_m1() / alpha, x.exp()),
            },
            Divergence::ReverseKl | Divergence::Alpha => (log_ratio, 1.0),
        }
    }

    /// Loss and derivatives with respect to both log-ratios, for a loss that reads one pair at a time.
    fn pair(&self, kind: &str, p: &Pair, ratios: [f64; 2]) -> (f64, [f64; 2]) {
        let s = &self.settings;
        let (beta, epsilon) = (s.beta, s.label_smoothing);
        let [c, r] = ratios;
        let [(score_c, dc), (score_r, dr)] = ratios.map(|x| self.score(x));
        let of_difference = |(loss, slope): (f64, f64)| (loss, [slope * dc, -slope * dr]);
        let z = beta * (score_c - score_r);
        let [nc, nr] = p.tokens.map(|n| n.max(1.0));
        let per_token = score_c / nc - score_r / nr;
        let of_means = |(loss, slope): (f64, f64)| (loss, [slope * dc / nc, -slope * dr / nr]);
        match kind {
            "hinge" => of_difference(((1.0 - z).max(0.0), if z < 1.0 { -beta } else { 0.0 })),
            "ipo" => {
                let x = per_token - 0.5 / beta;
                of_means((x * x, 2.0 * x))
            }
            "exo_pair" => {
                let (w, l) = (log_sigmoid(z) - (-epsilon).ln_1p(), log_sigmoid(-z) - epsilon.ln());
                let (qw, ql) = (sigmoid(z), sigmoid(-z));
                of_difference((qw * w + ql * l, beta * qw * ql * (w - l)))
            }
            "robust" => {
                let (clean, flipped) = (-(1.0 - epsilon) * log_sigmoid(z), -epsilon * log_sigmoid(-z));
                let slope = -(1.0 - epsilon) * sigmoid(-z) - epsilon * sigmoid(z);
                of_difference(((clean - flipped) / (1.0 - 2.0 * epsilon), beta * slope / (1.0 - 2.0 * epsilon)))
            }
            "discopop" => {
                let (m, logistic, exponential) = (sigmoid(z / s.discopop_tau), -log_sigmoid(z), (-z).exp());
                let slope = -sigmoid(-z) * (1.0 - m) - exponential * m
                    + m * (1.0 - m) / s.discopop_tau * (exponential - logistic);
                of_difference((logistic * (1.0 - m) + exponential * m, beta * slope))
            }
            "sigmoid_norm" => of_means(smoothed(beta, per_token, 0.0)),
            "nca_pair" => (
                -log_sigmoid(beta * c) - 0.5 * log_sigmoid(-beta * c) - 0.5 * log_sigmoid(-beta * r),
                [beta * (0.5 * sigmoid(beta * c) - sigmoid(-beta * c)), 0.5 * beta * sigmoid(beta * r)],
            ),
            "bco_pair" => (
                -log_sigmoid(beta * c) - log_sigmoid(-beta * r),
                [-beta * sigmoid(-beta * c), beta * sigmoid(beta * r)],
            ),
            "sppo_hard" => {
                let (win, lose) = (c - 0.5 / beta, r + 0.5 / beta);
                (win * win + lose * lose, [2.0 * win, 2.0 * lose])
            }
            "apo_zero" => {
                let [slope_c, slope_r] = [c, r].map(|x| beta * sigmoid(beta * x) * sigmoid(-beta * x));
                (sigmoid(-beta * c) + sigmoid(beta * r), [-slope_c, slope_r])
            }
            "apo_down" => {
                let slope = |x: f64| beta * sigmoid(beta * x) * sigmoid(-beta * x);
                let apart = slope(c - r);
                (sigmoid(beta * c) + sigmoid(-beta * (c - r)), [slope(c) - apart, apart])
            }
            _ => of_difference(smoothed(beta, score_c - score_r, 0.0)),
        }
    }

    /// The losses of optimal transport (2406.05882), which compare sorted values of a batch.
    fn transport(&self, kind: &str, pairs: &[Pair]) -> Vec<(f64, [f64; 2])> {
        let paired = kind == "aot";
        let difference = |l: &[f64; 2]| l[0] - l[1];
        let ratio = |p: &Pair, i: usize| p.logps[i] - p.reference[i];
        let (high, low): (Vec<f64>, Vec<f64>) = match paired {
            true => pairs.iter().map(|p| (difference(&p.logps), difference(&p.reference))).unzip(),
            false => pairs.iter().map(|p| (ratio(p, 0), ratio(p, 1))).unzip(),
        };
        let order = |values: &[f64]| {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
            order
        };
        let mut out = vec![(0.0, [0.0; 2]); pairs.len()];
        for (h, l) in order(&high).into_iter().zip(order(&low)) {
            let (loss, slope) = smoothed(self.settings.beta, high[h] - low[l], self.settings.label_smoothing);
            out[h].0 += loss;
            match paired {
                true => out[h].1 = [slope, -slope],
                false => {
                    out[h].1[0] = slope;
                    out[l].1[1] = -slope;
                }
            }
        }
        out
    }
}

impl Formula for Direct {
    fn losses(&self, pairs: &[Pair]) -> Vec<PairLoss> {
        let beta = self.settings.beta;
        let ratios = |p: &Pair| [p.logps[0] - p.reference[0], p.logps[1] - p.reference[1]];
        let rewards = |p: &Pair| ratios(p).map(|x| beta * x);
        let mut out: Vec<PairLoss> =
            pairs.iter().map(|p| PairLoss { rewards: rewards(p), logps: p.logps, ..PairLoss::default() }).collect();
        // `sft` is the likelihood of chosen answers, which is added elsewhere
        for &(kind, weight) in self.losses.iter().filter(|l| l.0 != "sft") {
            let found = match kind {
                "aot" | "aot_unpaired" => self.transport(kind, pairs),
                _ => pairs.iter().map(|p| self.pair(kind, p, ratios(p))).collect(),
            };
            for (o, (loss, slopes)) in out.iter_mut().zip(found) {
                o.loss += weight * loss;
                o.slopes[0] += weight * slopes[0];
                o.slopes[1] += weight * slopes[1];
            }
        }
        out
    }
}

impl Objective for Dpo {
    fn name(&self) -> &'static str {
        "dpo"
    }

    fn settings(&self) -> &'static [&'static str] {
        &[
            "loss_type",
            "loss_weights",
            "beta",
            "label_smoothing",
            "f_divergence_type",
            "f_alpha_divergence_coef",
            "discopop_tau",
            "precompute_ref_log_probs",
        ]
    }

    fn check(&self, settings: &LossSettings) -> Result<()> {
        let losses = settings.losses(self.name(), &LOSSES)?;
        let has = |name: &str| losses.iter().any(|l| l.0 == name);
        let wrong = |what: String| Err(Error::Config(what));
        let (epsilon, divergence) = (settings.label_smoothing, settings.f_divergence_type);
        if has("exo_pair") && epsilon <= 0.0 {
            return wrong("label_smoothing: the loss exo_pair needs one above 0, such as 1e-3".into());
        }
        if has("robust") && epsilon >= 0.5 {
            return wrong(format!("label_smoothing is {epsilon}: the loss robust needs one below 0.5"));
        }
        match losses.iter().find(|l| divergence != Divergence::ReverseKl && !OF_SCORES.contains(&l.0)) {
            None => Ok(()),
            Some((loss, _)) => wrong(format!(
                "f_divergence_type: {} has no meaning for the loss {loss}: use reverse_kl, or one of {}",
                divergence.as_str(),
                OF_SCORES.join(", ")
            )),
        }
    }

    fn reference(&self) -> bool {
        true
    }

    fn losses(&self, model: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        let losses = settings.losses(self.name(), &LOSSES)?;
        if let (Some((kind, _)), true) = (losses.iter().find(|l| l.0.starts_with("aot")), passes.len() > 1) {
            return Err(Error::Config(format!(
                "loss_type: {kind} compares all pairs of a batch, which max_tokens_per_batch or auto_find_batch_size cuts into \
                 {} passes: remove them, or lower per_device_train_batch_size",
                passes.len()
            )));
        }
        let weight = losses.iter().filter(|l| l.0 == "sft").map(|l| l.1).sum();
        let likelihood = Likelihood { weight, with_prompt: false };
        let formula = Arc::new(Direct { losses, settings: settings.clone() });
        pairs::losses(passes, formula, likelihood, |examples| reference::of_pass(model, examples))
    }

    fn likely(&self, examples: &[Example]) -> Option<Vec<Example>> {
        pairs::chosen(examples)
    }

    of_pairs!(Dpo, pairs::METRICS);
}
