//! Settings of losses of preferences, with the names and defaults of TRL.

use crate::{Error, Result};

/// Regulariser between the model and its reference in direct preference optimisation (2309.16240).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Divergence {
    /// KL(model ‖ reference).
    #[default]
    ReverseKl,
    /// KL(reference ‖ model).
    ForwardKl,
    /// Jensen–Shannon.
    Js,
    /// The α-divergence with `f_alpha_divergence_coef`.
    Alpha,
}

impl Divergence {
    /// All of them.
    pub const ALL: [Divergence; 4] = [Divergence::ReverseKl, Divergence::ForwardKl, Divergence::Js, Divergence::Alpha];

    /// Name in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Divergence::ReverseKl => "reverse_kl",
            Divergence::ForwardKl => "forward_kl",
            Divergence::Js => "js_divergence",
            Divergence::Alpha => "alpha_divergence",
        }
    }
}

/// Settings of the loss of a run. Objectives without such settings ignore them.
#[derive(Debug, Clone, PartialEq)]
pub struct LossSettings {
    /// Names of the losses, of which the weighted sum is taken; empty: the first of the objective.
    pub loss_type: Vec<String>,
    /// A weight for each of them; empty: 1.
    pub loss_weights: Vec<f64>,
    /// β: scale of rewards, and for orpo the weight of the odds ratio.
    pub beta: f64,
    /// Probability that a preference is the wrong way round.
    pub label_smoothing: f64,
    /// Regulariser of dpo.
    pub f_divergence_type: Divergence,
    /// α of [`Divergence::Alpha`].
    pub f_alpha_divergence_coef: f64,
    /// Temperature of the loss discopop.
    pub discopop_tau: f64,
    /// Target margin of simpo.
    pub simpo_gamma: f64,
    /// Weight of the chosen answers' negative log-likelihood in cpo.
    pub cpo_alpha: f64,
    /// Weight of desirable answers in kto.
    pub desirable_weight: f64,
    /// Weight of undesirable answers in kto.
    pub undesirable_weight: f64,
    /// Longest sequence in tokens.
    pub max_length: usize,
}

impl LossSettings {
    /// The defaults.
    pub const DEFAULT: LossSettings = LossSettings {
        loss_type: Vec::new(),
        loss_weights: Vec::new(),
        beta: 0.1,
        label_smoothing: 0.0,
        f_divergence_type: Divergence::ReverseKl,
        f_alpha_divergence_coef: 0.5,
        discopop_tau: 0.05,
        simpo_gamma: 0.5,
        cpo_alpha: 1.0,
        desirable_weight: 1.0,
        undesirable_weight: 1.0,
        max_length: usize::MAX,
    };

    /// The losses with their weights, of those that an objective knows.
    ///
    /// # Errors
    /// A name that is not among `known`, or another number of weights; the error lists what there is.
    pub(super) fn losses(&self, objective: &str, known: &[&'static str]) -> Result<Vec<(&'static str, f64)>> {
        if self.loss_type.is_empty() && self.loss_weights.len() < 2 {
            return Ok(vec![(known[0], self.loss_weights.first().copied().unwrap_or(1.0))]);
        }
        if !self.loss_weights.is_empty() && self.loss_weights.len() != self.loss_type.len() {
            let (weights, losses) = (self.loss_weights.len(), self.loss_type.len());
            return Err(Error::Config(format!(
                "loss_weights has {weights} numbers, but loss_type has {losses} losses: give one for each"
            )));
        }
        let named = self.loss_type.iter().enumerate().map(|(i, name)| {
            let found = known.iter().find(|k| **k == name.to_ascii_lowercase().replace('-', "_"));
            let what =
                || format!("loss_type: there is no `{name}` for the task {objective}; there are {}", known.join(", "));
            Ok((*found.ok_or_else(|| Error::Config(what()))?, self.loss_weights.get(i).copied().unwrap_or(1.0)))
        });
        named.collect()
    }
}

impl Default for LossSettings {
    fn default() -> LossSettings {
        LossSettings::DEFAULT
    }
}
