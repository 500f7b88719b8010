//! Common to the losses over pairs of answers: the tokens of a batch, figures of a pair, and metrics.

use super::numeric::mean;
use crate::Result;
use crate::metrics::Metrics;
use crate::objective::batches::figures;
use crate::objective::column::{Column, ColumnType};
use crate::objective::definition::{Evaluation, ExampleScores, Objective, Pass, Task};
use crate::objective::metric::Metric;
use loram_io::data::Example;
use loram_nn::{BatchLoss, GroupLoss, IGNORE, LogProbabilities, Loss, Model, OfLogProbabilities};
use std::sync::Arc;

/// A pair of answers; the first is preferred.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pair {
    /// Σ log p of each answer, in nats.
    pub logps: [f64; 2],
    /// The same under the reference; 0 for losses without one.
    pub reference: [f64; 2],
    /// Counted tokens of each answer.
    pub tokens: [f64; 2],
}

impl Pair {
    /// The mean log-probabilities of a token.
    pub fn means(&self) -> [f64; 2] {
        [self.logps[0] / self.tokens[0].max(1.0), self.logps[1] / self.tokens[1].max(1.0)]
    }
}

/// The result of a formula for a pair.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct PairLoss {
    /// The loss.
    pub loss: f64,
    /// Its derivatives with respect to [`Pair::logps`].
    pub slopes: [f64; 2],
    /// Rewards of both answers.
    pub rewards: [f64; 2],
    /// The log-probabilities that metrics show.
    pub logps: [f64; 2],
}

/// A loss of pairs.
pub(super) trait Formula: std::fmt::Debug + Send + Sync {
    /// The losses of the pairs of a pass, in order.
    fn losses(&self, pairs: &[Pair]) -> Vec<PairLoss>;
}

/// The negative log-likelihood of preferred answers that is added to a loss: the mean over their tokens in a batch.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Likelihood {
    /// Its weight.
    pub weight: f64,
    /// Prompts count, too.
    pub with_prompt: bool,
}

/// The pairs of a pass. Tokens are in three groups for each pair: those of both answers, and those of the preferred one's prompt.
#[derive(Debug)]
struct Pairs {
    formula: Arc<dyn Formula>,
    likelihood: Likelihood,
    /// The pairs, with the figures that are known before the pass.
    pairs: Vec<Pair>,
    /// Tokens of the likelihood, for each pair.
    tokens: Vec<f64>,
    /// Pairs in the batch by tokens of the likelihood in it.
    per_token: f64,
}

/// Figures of a pair, in this order.
const FIGURES: [&str; 8] =
    ["loss", "reward_chosen", "reward_rejected", "logp_chosen", "logp_rejected", "nll", "weighted_nll", "nll_tokens"];

impl OfLogProbabilities for Pairs {
    fn loss(&self, sums: &[f64]) -> loram_nn::Result<GroupLoss> {
        let pairs: Vec<Pair> =
            self.pairs.iter().zip(sums.chunks_exact(3)).map(|(p, s)| Pair { logps: [s[0], s[1]], ..*p }).collect();
        let mut out = GroupLoss { slopes: Vec::with_capacity(sums.len()), ..GroupLoss::default() };
        let weight = self.likelihood.weight;
        for (i, found) in self.formula.losses(&pairs).into_iter().enumerate() {
            let nll = -(sums[3 * i] + sums[3 * i + 2]);
            out.loss.add(BatchLoss {
                loss_sum: found.loss + weight * self.per_token * nll,
                counted: 1,
                correct: usize::from(found.rewards[0] > found.rewards[1]),
            });
            let toward = weight * self.per_token;
            out.slopes.extend([found.slopes[0] - toward, found.slopes[1], -toward]);
            let [[rc, rr], [lc, lr]] = [found.rewards, found.logps];
            let figures: [f64; FIGURES.len()] = [found.loss, rc, rr, lc, lr, nll, weight * nll, self.tokens[i]];
            out.figures.extend(figures.map(|x| x as f32));
        }
        Ok(out)
    }
}

/// The losses of the passes of one batch.
pub(super) fn losses(
    passes: &[Pass<'_>],
    formula: Arc<dyn Formula>,
    likelihood: Likelihood,
    mut reference: impl FnMut(&[&Example]) -> Result<Vec<f64>>,
) -> Result<Vec<Box<dyn Loss>>> {
    let tokens = |e: &Example| {
        let chosen = &e.sequences[0];
        if likelihood.with_prompt { chosen.input_ids.len().saturating_sub(1) } else { chosen.counted() }
    };
    let all = || passes.iter().flat_map(|p| p.examples.iter().copied());
    let per_token = all().count() as f64 / all().map(tokens).sum::<usize>().max(1) as f64;
    let mut out: Vec<Box<dyn Loss>> = Vec::new();
    for pass in passes {
        let reference = reference(&pass.examples)?;
        let (mut labels, mut groups, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
        for (i, e) in pass.examples.iter().enumerate() {
            for (answer, s) in e.sequences.iter().enumerate() {
                let ids = &s.input_ids;
                for (at, label) in s.labels().enumerate() {
                    let in_prompt = label == IGNORE && likelihood.with_prompt && answer == 0;
                    let (label, group) = match ids.get(at + 1) {
                        Some(&next) if in_prompt => (i64::from(next), 2),
                        _ => (label, answer),
                    };
                    labels.push(label);
                    groups.push(3 * i + group);
                }
            }
            let tokens = [0, 1].map(|answer| e.sequences[answer].counted() as f64);
            pairs.push(Pair { logps: [0.0; 2], reference: [reference[2 * i], reference[2 * i + 1]], tokens });
        }
        let tokens = pass.examples.iter().map(|e| tokens(e) as f64).collect();
        let n = pairs.len();
        let of = Pairs { formula: formula.clone(), likelihood, pairs, tokens, per_token };
        out.push(Box::new(LogProbabilities::new(labels, groups, 3 * n, n, Box::new(of))));
    }
    Ok(out)
}

/// Methods that all objectives over pairs share.
macro_rules! of_pairs {
    ($name:ident, $metrics:expr) => {
        fn takes(&self, record: &loram_io::data::Record) -> bool {
            record.texts.len() == 2 && record.label.is_none()
        }

        fn head(&self, _: &[String]) -> loram_nn::HeadKind {
            loram_nn::HeadKind::LanguageModel
        }

        fn trained(&self, _: &$crate::objective::Trained<'_>) -> bool {
            false
        }

        fn over_answers(&self) -> bool {
            true
        }

        fn metrics(&self) -> &'static [$crate::objective::Metric] {
            $metrics
        }

        fn evaluate(&self, found: &$crate::objective::Evaluation<'_>) -> Result<$crate::Metrics> {
            Ok($crate::objective::preference::pairs::evaluate(&$name, found))
        }

        fn scores_kind(&self) -> &'static str {
            self.name()
        }

        fn score_columns(&self) -> &'static [(&'static str, $crate::objective::ColumnType)] {
            $crate::objective::preference::pairs::COLUMNS
        }

        fn example_scores(
            &self,
            model: &mut Model,
            task: $crate::objective::Task<'_>,
            examples: &[loram_io::data::Example],
            batch_size: usize,
        ) -> Result<$crate::objective::ExampleScores> {
            $crate::objective::preference::pairs::example_scores(&$name, model, task, examples, batch_size)
        }

        fn score(&self, scores: &$crate::objective::ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
            $crate::objective::preference::pairs::score(scores, metric, chosen)
        }
    };
}
pub(super) use of_pairs;

/// The chosen answers.
pub(super) fn chosen(examples: &[Example]) -> Option<Vec<Example>> {
    Some(examples.iter().map(|e| Example::of(e.sequences[0].clone())).collect())
}

/// No reference.
pub(super) fn without_reference(examples: &[&Example]) -> Result<Vec<f64>> {
    Ok(vec![0.0; 2 * examples.len()])
}

const LESS: Metric = Metric { higher_is_better: false, ..Metric::new("", "", "") };
pub(super) const CHOSEN: Metric =
    Metric { short: None, ..Metric::new("rewards/chosen", "reward of chosen answers", "") };
pub(super) const REJECTED: Metric =
    Metric { name: "rewards/rejected", title: "reward of rejected answers", short: None, ..LESS };
const ACCURACY: Metric =
    Metric { percent: true, ..Metric::new("rewards/accuracies", "reward accuracy", "reward accuracy") };
pub(super) const MARGIN: Metric = Metric::new("rewards/margins", "reward margin", "margin");
pub(super) const LOGP_CHOSEN: Metric =
    Metric { short: None, ..Metric::new("logps/chosen", "log-probability of chosen answers", "") };
pub(super) const LOGP_REJECTED: Metric =
    Metric { name: "logps/rejected", title: "log-probability of rejected answers", short: None, ..LESS };
const NLL: Metric =
    Metric { name: "nll_loss", title: "negative log-likelihood of chosen answers", short: None, ..LESS };

/// The metrics of pairs.
pub(super) const METRICS: &[Metric] = &[Metric::LOSS, ACCURACY, MARGIN, CHOSEN, REJECTED, LOGP_CHOSEN, LOGP_REJECTED];

/// The same with the likelihood of chosen answers.
pub(super) const METRICS_WITH_NLL: &[Metric] =
    &[Metric::LOSS, ACCURACY, MARGIN, CHOSEN, REJECTED, LOGP_CHOSEN, LOGP_REJECTED, NLL];

/// The columns of the figures of pairs.
pub(super) const COLUMNS: &[(&str, ColumnType)] = &[
    (FIGURES[0], ColumnType::Real),
    (FIGURES[1], ColumnType::Real),
    (FIGURES[2], ColumnType::Real),
    (FIGURES[3], ColumnType::Real),
    (FIGURES[4], ColumnType::Real),
    (FIGURES[5], ColumnType::Real),
    (FIGURES[6], ColumnType::Real),
    (FIGURES[7], ColumnType::Real),
];

/// Figures of pairs out of what their loss gives.
fn scores_of(objective: &'static dyn Objective, figures: &[f32]) -> ExampleScores {
    let column = |i: usize| Column::Real(figures.chunks_exact(FIGURES.len()).map(|f| f64::from(f[i])).collect());
    let columns: [(&str, Column); FIGURES.len()] = std::array::from_fn(|i| (FIGURES[i], column(i)));
    ExampleScores::of(objective, columns)
}

/// The metrics of an evaluation.
pub(super) fn evaluate(objective: &'static dyn Objective, found: &Evaluation<'_>) -> Metrics {
    let scores = scores_of(objective, found.outputs);
    let all: Vec<usize> = (0..scores.len()).collect();
    let mut metrics = found.metrics();
    // the likelihood is a mean over the tokens of a batch in training, over all tokens here
    metrics.loss = score(&scores, "loss", &all).unwrap_or(metrics.loss);
    for metric in &objective.metrics()[1..] {
        metrics.set(*metric, score(&scores, metric.name, &all));
    }
    metrics
}

/// Figures of single pairs.
pub(super) fn example_scores(
    objective: &'static dyn Objective,
    model: &mut Model,
    task: Task<'_>,
    examples: &[Example],
    batch_size: usize,
) -> Result<ExampleScores> {
    Ok(scores_of(objective, &figures(model, task, examples, batch_size)?))
}

/// A metric over chosen pairs.
pub(super) fn score(scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
    let column = |i: usize| scores.reals(FIGURES[i]);
    let of = |i: usize| mean(chosen.iter().map(|&e| column(i)[e]));
    let (c, r) = (column(1), column(2));
    match metric {
        "loss" => Some(of(0)? + of(6)? / of(7)?.max(f64::MIN_POSITIVE)),
        "rewards/chosen" => of(1),
        "rewards/rejected" => of(2),
        "rewards/accuracies" => mean(chosen.iter().map(|&e| f64::from(u8::from(c[e] > r[e])))),
        "rewards/margins" => mean(chosen.iter().map(|&e| c[e] - r[e])),
        "logps/chosen" => of(3),
        "logps/rejected" => of(4),
        "nll_loss" => Some(of(5)? / of(7)?),
        _ => None,
    }
}
