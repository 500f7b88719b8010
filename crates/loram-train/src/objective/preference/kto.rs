//! Kahneman–Tversky optimisation (2402.01306): answers that are desirable or not, against the divergence from a reference that
//! mismatched prompts and answers of the same batch show.

use super::numeric::{mean, sigmoid};
use super::pairs::{CHOSEN, LOGP_CHOSEN, LOGP_REJECTED, MARGIN, REJECTED};
use super::reference;
use crate::metrics::Metrics;
use crate::objective::batches::figures;
use crate::objective::column::{Column, ColumnType};
use crate::objective::definition::{Evaluation, ExampleScores, Objective, Pass, Task, Trained, no_target};
use crate::objective::metric::Metric;
use crate::objective::settings::LossSettings;
use crate::{Error, Result};
use loram_io::data::{Example, Label, Record, Sequence, Target};
use loram_nn::{BatchLoss, GroupLoss, HeadKind, LogProbabilities, Loss, Model, OfLogProbabilities};

/// Learn from answers that are judged one by one (`kto`).
#[derive(Debug)]
pub struct Kto;

const LOSSES: [&str; 2] = ["kto", "apo_zero_unpaired"];
const KL: Metric = Metric { higher_is_better: false, ..Metric::new("kl", "divergence from the reference", "kl") };

/// Figures of an answer, in this order.
const FIGURES: [&str; 5] = ["loss", "reward", "logp", "kl", "desirable"];

/// The answers of a pass, a group of tokens for each.
#[derive(Debug)]
struct Judged {
    /// The loss is 1 − σ(±β(log π/π_ref − kl)).
    kl: f64,
    beta: f64,
    /// Weights of undesirable and of desirable answers.
    weights: [f64; 2],
    desirable: Vec<bool>,
    reference: Vec<f64>,
}

impl OfLogProbabilities for Judged {
    fn loss(&self, sums: &[f64]) -> loram_nn::Result<GroupLoss> {
        let mut out = GroupLoss::default();
        for ((logp, reference), &yes) in sums.iter().zip(&self.reference).zip(&self.desirable) {
            let ratio = logp - reference;
            let sign = if yes { 1.0 } else { -1.0 };
            let z = sign * self.beta * (ratio - self.kl);
            let weight = self.weights[usize::from(yes)];
            let loss = weight * sigmoid(-z);
            let reward = self.beta * ratio;
            out.loss.add(BatchLoss { loss_sum: loss, counted: 1, correct: usize::from(sign * reward > 0.0) });
            out.slopes.push(-weight * sign * self.beta * sigmoid(z) * sigmoid(-z));
            let figures: [f64; FIGURES.len()] = [loss, reward, *logp, self.kl, f64::from(u8::from(yes))];
            out.figures.extend(figures.map(|x| x as f32));
        }
        Ok(out)
    }
}

fn desirable(e: &Example) -> Result<bool> {
    match e.target {
        Some(Target::Desirable(yes)) => Ok(yes),
        _ => Err(no_target(&Kto)),
    }
}

/// The answers of a batch, each with the prompt of the next example, as TRL pairs them.
fn mismatched(examples: &[&Example], max_length: usize) -> Vec<Sequence> {
    let cut = |e: &Example| {
        let s = &e.sequences[0];
        let at = s.loss_mask.iter().position(|&m| m).unwrap_or(s.input_ids.len());
        let (prompt, answer) = s.input_ids.split_at(at);
        (prompt.to_vec(), answer.to_vec())
    };
    let parts: Vec<_> = examples.iter().map(|e| cut(e)).collect();
    let n = parts.len();
    let pair = |i: usize| {
        let (prompt, answer) = (&parts[i].0, &parts[(i + n - 1) % n].1);
        let mut input_ids = [&prompt[..], answer].concat();
        input_ids.truncate(max_length);
        let loss_mask = (0..input_ids.len()).map(|at| at >= prompt.len()).collect();
        Sequence { input_ids, loss_mask, ..Sequence::default() }
    };
    (0..n).map(pair).collect()
}

/// The mean of log π/π_ref over mismatched pairs of the batch, at least 0; nothing is learnt from them.
fn divergence(model: &mut Model, passes: &[Pass<'_>], max_length: usize) -> Result<f64> {
    let all: Vec<&Example> = passes.iter().flat_map(|p| p.examples.iter().copied()).collect();
    let sequences = mismatched(&all, max_length);
    let mut ratios = Vec::new();
    let mut rest = &sequences[..];
    for pass in passes {
        let (these, others) = rest.split_at(pass.examples.len());
        rest = others;
        let these: Vec<&Sequence> = these.iter().collect();
        let now = reference::sums(model, &these)?;
        let before = model.without_adapters(|m| reference::sums(m, &these))??;
        ratios.extend(now.iter().zip(&before).map(|(a, b)| a - b));
    }
    Ok(mean(ratios).unwrap_or(0.0).max(0.0))
}

impl Objective for Kto {
    fn name(&self) -> &'static str {
        "kto"
    }

    fn takes(&self, record: &Record) -> bool {
        matches!(record.label, Some(Label::Desirable(_)))
    }

    /// The chosen answer of a pair is desirable, the rejected one is not, as TRL's `unpair_preference_dataset` has it.
    fn records(&self, records: Vec<Record>) -> Vec<Record> {
        let unpaired = |r: Record| match r.texts.len() {
            2 if r.label.is_none() => {
                let judged =
                    |(text, yes)| Record { label: Some(Label::Desirable(yes)), ..Record::new(r.at.clone(), text) };
                r.texts.into_iter().zip([true, false]).map(judged).collect()
            }
            _ => vec![r],
        };
        records.into_iter().flat_map(unpaired).collect()
    }

    fn head(&self, _: &[String]) -> HeadKind {
        HeadKind::LanguageModel
    }

    fn trained(&self, _: &Trained<'_>) -> bool {
        false
    }

    fn over_answers(&self) -> bool {
        true
    }

    fn reference(&self) -> bool {
        true
    }

    fn settings(&self) -> &'static [&'static str] {
        &["loss_type", "beta", "desirable_weight", "undesirable_weight", "precompute_ref_log_probs"]
    }

    fn check(&self, settings: &LossSettings) -> Result<()> {
        match settings.losses(self.name(), &LOSSES)?.len() {
            1 => Ok(()),
            _ => Err(Error::Config("loss_type: the task kto takes one loss".into())),
        }
    }

    /// The divergence of a batch is measured with the adapters on and off.
    fn needs_adapters(&self, settings: &LossSettings) -> bool {
        settings.losses(self.name(), &LOSSES).is_ok_and(|losses| losses[0].0 == "kto")
    }

    fn losses(&self, model: &mut Model, passes: &[Pass<'_>], settings: &LossSettings) -> Result<Vec<Box<dyn Loss>>> {
        let kl = match self.needs_adapters(settings) {
            true => divergence(model, passes, settings.max_length)?,
            false => 0.0,
        };
        let mut out: Vec<Box<dyn Loss>> = Vec::new();
        for Pass { examples, .. } in passes {
            let judged = Judged {
                kl,
                beta: settings.beta,
                weights: [settings.undesirable_weight, settings.desirable_weight],
                desirable: examples.iter().map(|e| desirable(e)).collect::<Result<_>>()?,
                reference: reference::of_pass(model, examples)?,
            };
            let labels: Vec<i64> = examples.iter().flat_map(|e| e.labels()).collect();
            let groups = examples.iter().enumerate().flat_map(|(i, e)| vec![i; e.tokens()]).collect();
            let n = examples.len();
            out.push(Box::new(LogProbabilities::new(labels, groups, n, n, Box::new(judged))));
        }
        Ok(out)
    }

    /// The desirable answers; all where none is.
    fn likely(&self, examples: &[Example]) -> Option<Vec<Example>> {
        let of = |e: &Example| Example::of(e.sequences[0].clone());
        let good: Vec<Example> =
            examples.iter().filter(|e| e.target == Some(Target::Desirable(true))).map(of).collect();
        Some(if good.is_empty() { examples.iter().map(of).collect() } else { good })
    }

    fn metrics(&self) -> &'static [Metric] {
        &[Metric::LOSS, MARGIN, CHOSEN, REJECTED, LOGP_CHOSEN, LOGP_REJECTED, KL]
    }

    fn evaluate(&self, found: &Evaluation<'_>) -> Result<Metrics> {
        let scores = scores_of(found.outputs);
        let all: Vec<usize> = (0..scores.len()).collect();
        let mut metrics = found.metrics();
        for metric in &self.metrics()[1..] {
            metrics.set(*metric, self.score(&scores, metric.name, &all));
        }
        Ok(metrics)
    }

    fn scores_kind(&self) -> &'static str {
        "kto"
    }

    fn score_columns(&self) -> &'static [(&'static str, ColumnType)] {
        const COLUMNS: &[(&str, ColumnType)] = &[
            (FIGURES[0], ColumnType::Real),
            (FIGURES[1], ColumnType::Real),
            (FIGURES[2], ColumnType::Real),
            (FIGURES[3], ColumnType::Real),
            (FIGURES[4], ColumnType::Real),
        ];
        COLUMNS
    }

    fn example_scores(
        &self,
        model: &mut Model,
        task: Task<'_>,
        examples: &[Example],
        n: usize,
    ) -> Result<ExampleScores> {
        Ok(scores_of(&figures(model, task, examples, n)?))
    }

    /// Rewards and log-probabilities of desirable answers are those of chosen ones. Sums and counts are TRL's.
    fn score(&self, scores: &ExampleScores, metric: &str, chosen: &[usize]) -> Option<f64> {
        let of = |column: &str, yes: f64| {
            let (values, desirable) = (scores.reals(column), scores.reals("desirable"));
            mean(chosen.iter().filter(|&&e| desirable[e] == yes).map(|&e| values[e]))
        };
        match metric {
            "loss" | "kl" => mean(chosen.iter().map(|&e| scores.reals(metric)[e])),
            "rewards/chosen" => of("reward", 1.0),
            "rewards/rejected" => of("reward", 0.0),
            "rewards/margins" => Some(of("reward", 1.0)? - of("reward", 0.0)?),
            "logps/chosen" => of("logp", 1.0),
            "logps/rejected" => of("logp", 0.0),
            _ => None,
        }
    }
}

fn scores_of(figures: &[f32]) -> ExampleScores {
    let column = |i: usize| Column::Real(figures.chunks_exact(FIGURES.len()).map(|f| f64::from(f[i])).collect());
    let columns: [(&str, Column); FIGURES.len()] = std::array::from_fn(|i| (FIGURES[i], column(i)));
    ExampleScores::of(&Kto, columns)
}
