//! One arm: its learning rates, the best one, and the figures of its runs at this learning rate.

use super::missing::Missing;
use super::pair::Comparison;
use crate::choice::{self, Choice};
use crate::grid::Score;
use crate::metrics_file::Magnitudes;
use crate::run_record::RunRecord;
use crate::scores::Scores;
use crate::stats::{Curve, Interval, Observations, bootstrap, mean, mean_curve, std};
use loram_train::config::LearningRate;
use loram_train::{ExampleScores, RateSearch};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; absent with one value.
    pub std: Option<f64>,
    /// Number of values.
    pub n: usize,
}

impl Spread {
    fn from(values: &[f64]) -> Option<Spread> {
        (!values.is_empty()).then(|| Spread { mean: mean(values), std: std(values), n: values.len() })
    }

    /// Mean and standard deviation over the runs that have the figure.
    pub(super) fn of(runs: &[&RunRecord], figure: impl Fn(&Scores) -> Option<f64>) -> Option<Spread> {
        Spread::from(&runs.iter().filter_map(|r| figure(&r.scores)).collect::<Vec<_>>())
    }
}

/// An arm at one learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RatePoint {
    /// The learning rate, as the grid has it.
    pub learning_rate: LearningRate,
    /// The number that it was in these runs (the geometric mean where it differed between seeds); `None` where none is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<f64>,
    /// Score on the selection part.
    pub selection: Option<Spread>,
    /// Score on the test part.
    pub test: Option<Spread>,
    /// Score on the test part of the last short run of successive halving, which has one seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<f64>,
    /// Number of runs that diverged.
    pub diverged: usize,
    /// True if successive halving dropped it, so that it has no full runs.
    pub halved: bool,
}

/// The edge of the grid at which the best learning rate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edge {
    /// It is the lowest one of the grid.
    Lowest,
    /// It is the highest one of the grid.
    Highest,
}

/// Mean cost of the runs at the best learning rate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct MeanCost {
    /// Seconds of initialisation.
    pub start_seconds: f64,
    /// Seconds of training.
    pub train_seconds: f64,
    /// Largest resident memory in bytes.
    pub peak_rss: f64,
    /// Number of trained parameters.
    pub trainable_parameters: f64,
    /// Bytes of the adapter or model.
    pub result_bytes: f64,
    /// Bytes of a checkpoint.
    pub checkpoint_bytes: f64,
}

/// All figures of an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmReport {
    /// Its name.
    pub arm: String,
    /// All its learning rates, ascending.
    pub rates: Vec<RatePoint>,
    /// The learning rate with the best mean score on the selection part.
    pub best_rate: Option<LearningRate>,
    /// The edge of the grid at which it is, if it is at one.
    pub edge: Option<Edge>,
    /// Runs that are not there yet.
    pub missing: Missing,
    /// Why no verdict on this arm can be given yet; `None` if one can.
    pub open: Option<String>,
    /// Seeds of the runs at this learning rate, of those that all arms share.
    pub seeds: Vec<u64>,
    /// Score on the test part.
    pub score: Option<Spread>,
    /// Bootstrap interval of that score.
    pub interval: Option<Interval>,
    /// Score at the best learning rate of `lora`.
    pub fixed: Option<Spread>,
    /// Difference from each baseline, both at their own best learning rates.
    pub versus: BTreeMap<String, Comparison>,
    /// Difference from each baseline, both at the best learning rate of `lora`.
    pub versus_fixed: BTreeMap<String, Comparison>,
    /// Mean height of the loss curve.
    pub curve_height: Option<Spread>,
    /// Steps to the final loss of `lora`, over the runs that reach it.
    pub steps_to_lora: Option<Spread>,
    /// Loss on the base model's own domain, after minus before training.
    pub forgetting: Option<Spread>,
    /// Cost.
    pub cost: MeanCost,
    /// Mean loss curve.
    pub curve: Curve,
    /// Least and largest loss at each of its steps.
    pub band: Vec<(f64, f64)>,
    /// Magnitudes of the run with the first seed.
    pub magnitudes: Option<Magnitudes>,
    /// The line search for the learning rate of the run with the first seed, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<RateSearch>,
    /// Folders of the runs at the best learning rate.
    pub runs: Vec<String>,
}

impl ArmReport {
    /// The best learning rate as a number.
    pub fn best_number(&self) -> Option<f64> {
        self.rates.iter().find(|p| Some(p.learning_rate) == self.best_rate)?.number
    }

    /// True if only short runs of successive halving are done, so that there is no score yet.
    pub fn has_short_runs_only(&self) -> bool {
        self.rates.iter().all(|p| p.halved)
    }
}

/// The runs of an arm, and the learning rate that was chosen.
pub(super) struct Chosen<'a> {
    all: Vec<&'a RunRecord>,
    rates: Vec<RatePoint>,
    pub best_rate: Option<LearningRate>,
    /// Full runs at the best learning rate with the shared seeds, by seed.
    pub runs: Vec<&'a RunRecord>,
    pub missing: Missing,
    /// Why no verdict on this arm can be given yet.
    pub open: Option<String>,
}

impl<'a> Chosen<'a> {
    /// Full runs at a learning rate, by seed.
    pub fn at(&self, rate: LearningRate) -> Vec<&'a RunRecord> {
        let of = |r: &&&RunRecord| r.scores.point.rung.is_none() && r.scores.point.learning_rate == rate;
        let mut out: Vec<&RunRecord> = self.all.iter().filter(of).copied().collect();
        out.sort_by_key(|r| r.scores.point.seed);
        out
    }
}

/// The runs at a learning rate with the shared seeds.
struct Candidate<'a> {
    rate: LearningRate,
    /// By seed; those that diverged have no figures.
    runs: BTreeMap<u64, &'a RunRecord>,
}

impl Candidate<'_> {
    fn finished(&self) -> usize {
        self.runs.values().filter(|r| Choice::of(&r.scores).is_some()).count()
    }

    /// The mean over these seeds, or over all.
    fn choice(&self, seeds: Option<&BTreeSet<u64>>) -> Option<Choice> {
        let of = self.runs.iter().filter(|(s, _)| seeds.is_none_or(|list| list.contains(s)));
        Choice::mean(&of.filter_map(|(_, r)| Choice::of(&r.scores)).collect::<Vec<_>>())
    }
}

/// Chooses the learning rate with the best mean score on the selection part (see [`Choice`]) over the seeds that all arms
/// share, among those that have them, and of these among those with the most runs that did not diverge.
pub(super) fn choose<'a>(all: &[&'a RunRecord], shared: &BTreeSet<u64>, missing: Missing) -> Chosen<'a> {
    let mut out =
        Chosen { all: all.to_vec(), rates: Vec::new(), best_rate: None, runs: Vec::new(), missing, open: None };
    let mut candidates: Vec<Candidate<'_>> = Vec::new();
    let rates: BTreeSet<LearningRate> = all.iter().map(|r| r.scores.point.learning_rate).collect();
    for rate in rates {
        let full = out.at(rate);
        let selection = Spread::of(&full, |s| s.selection_score());
        let test = Spread::of(&full, |s| s.test_score());
        let short = all.iter().filter(|r| r.scores.point.learning_rate == rate && r.scores.point.rung.is_some());
        let short = short.max_by_key(|r| r.scores.point.rung).and_then(|r| r.scores.test_score());
        let diverged = full.iter().filter(|r| Choice::of(&r.scores).is_none()).count();
        let number =
            geometric(all.iter().filter(|r| r.scores.point.learning_rate == rate).filter_map(|r| r.learning_rate()));
        out.rates.push(RatePoint {
            learning_rate: rate,
            number,
            selection,
            test,
            short,
            diverged,
            halved: full.is_empty(),
        });
        let with_shared = full.into_iter().filter(|r| shared.contains(&r.scores.point.seed));
        let candidate = Candidate { rate, runs: with_shared.map(|r| (r.scores.point.seed, r)).collect() };
        candidates.extend((!out.at(rate).is_empty()).then_some(candidate));
    }
    let score = &all[0].scores.score;
    let most_runs = candidates.iter().map(|c| c.runs.len()).max().unwrap_or(0);
    let (complete, excluded): (Vec<_>, Vec<_>) = candidates.iter().partition(|c| c.runs.len() == most_runs);
    let most = complete.iter().map(|c| c.finished()).max().unwrap_or(0);
    let fit = complete.into_iter().filter(|c| c.finished() == most && most > 0);
    let best = fit.min_by(|a, b| choice::cmp(a.choice(None), b.choice(None), score));
    out.open = open(&out.missing, &excluded, best, score);
    out.best_rate = best.map(|c| c.rate);
    out.runs = best.map(|c| c.runs.values().copied().collect()).unwrap_or_default();
    out
}

/// Why the choice may change when the missing runs are there: a learning rate has no run at all, or one that lacks seeds is
/// better than the chosen one on the seeds that it has.
fn open(missing: &Missing, excluded: &[&Candidate<'_>], best: Option<&Candidate<'_>>, score: &Score) -> Option<String> {
    if let Some(best) = best {
        for c in excluded {
            let common: BTreeSet<u64> = c.runs.keys().filter(|s| best.runs.contains_key(s)).copied().collect();
            if common.is_empty() {
                return Some(format!("the learning rate {} shares no seed with the chosen {}", c.rate, best.rate));
            }
            // a run that diverged is there and speaks against its rate
            let diverged = c.finished() < c.runs.len();
            let order = choice::cmp(c.choice(Some(&common)), best.choice(Some(&common)), score);
            if !diverged && order == Ordering::Less {
                return Some(format!(
                    "the learning rate {}, which lacks seeds, is better than the chosen {} on the seeds that it has",
                    c.rate, best.rate
                ));
            }
        }
    }
    match missing.rates {
        0 => None,
        1 => Some("one of its learning rates has no run yet".into()),
        n => Some(format!("{n} of its learning rates have no run yet")),
    }
}

/// The geometric mean; `None` of nothing.
fn geometric(rates: impl Iterator<Item = f64>) -> Option<f64> {
    let logs: Vec<f64> = rates.map(f64::ln).collect();
    (!logs.is_empty()).then(|| mean(&logs).exp())
}

/// The mean final loss of these runs.
pub(super) fn final_loss(runs: &[&RunRecord]) -> Option<f64> {
    let last: Vec<f64> = runs.iter().filter_map(|r| r.curve().values.last().copied()).collect();
    (!last.is_empty()).then(|| mean(&last))
}

pub(super) fn report(name: &str, chosen: &Chosen<'_>, target: Option<f64>) -> ArmReport {
    let runs = &chosen.runs;
    let grid: Vec<LearningRate> =
        chosen.rates.iter().map(|p| p.learning_rate).filter(|r| *r != LearningRate::Auto).collect();
    let tried = grid.len();
    let edge = match grid.iter().position(|rate| Some(*rate) == chosen.best_rate) {
        Some(0) if tried > 1 => Some(Edge::Lowest),
        Some(i) if tried > 1 && i + 1 == tried => Some(Edge::Highest),
        _ => None,
    };
    let curves: Vec<&Curve> = runs.iter().map(|r| r.curve()).collect();
    let (curve, band) = mean_curve(&curves);
    let heights: Vec<f64> = curves.iter().filter_map(|c| c.mean_height()).collect();
    let reached: Vec<f64> =
        target.map(|t| curves.iter().filter_map(|c| c.first_at_or_below(t)).collect()).unwrap_or_default();
    let dir = |r: &&RunRecord| r.dir.display().to_string();
    ArmReport {
        arm: name.into(),
        rates: chosen.rates.clone(),
        best_rate: chosen.best_rate,
        edge,
        missing: chosen.missing.clone(),
        open: chosen.open.clone(),
        seeds: runs.iter().map(|r| r.scores.point.seed).collect(),
        score: Spread::of(runs, |s| s.test_score()),
        interval: interval(runs),
        fixed: None,
        versus: BTreeMap::new(),
        versus_fixed: BTreeMap::new(),
        curve_height: Spread::from(&heights),
        steps_to_lora: Spread::from(&reached),
        forgetting: Spread::of(runs, |s| s.forgetting.as_ref().map(|f| f.after - f.before)),
        cost: cost(runs),
        curve,
        band,
        magnitudes: runs.first().and_then(|r| r.magnitudes.clone()),
        search: runs.iter().find_map(|r| r.search()),
        runs: runs.iter().map(dir).collect(),
    }
}

fn interval(runs: &[&RunRecord]) -> Option<Interval> {
    let scored: Vec<&&RunRecord> = runs.iter().filter(|r| r.scores.test_score().is_some()).collect();
    let examples: Option<Vec<&ExampleScores>> = scored.iter().map(|r| r.scores.examples.as_ref()).collect();
    match examples {
        Some(list) if !list.is_empty() && list.iter().all(|e| e.len() == list[0].len()) => {
            bootstrap(Observations::Examples(&list, &scored[0].scores.score.name))
        }
        _ => bootstrap(Observations::Scores(&scored.iter().filter_map(|r| r.scores.test_score()).collect::<Vec<_>>())),
    }
}

fn cost(runs: &[&RunRecord]) -> MeanCost {
    if runs.is_empty() {
        return MeanCost::default();
    }
    let of = |f: fn(&crate::scores::Cost) -> f64| mean(&runs.iter().map(|r| f(&r.scores.cost)).collect::<Vec<_>>());
    MeanCost {
        start_seconds: of(|c| c.start_seconds),
        train_seconds: of(|c| c.train_seconds),
        peak_rss: of(|c| c.peak_rss as f64),
        trainable_parameters: of(|c| c.trainable_parameters as f64),
        result_bytes: of(|c| c.result_bytes as f64),
        checkpoint_bytes: of(|c| c.checkpoint_bytes as f64),
    }
}
