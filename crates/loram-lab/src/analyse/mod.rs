//! Analyses run records: the best learning rate of every arm, its score, its difference from the baselines.

mod arm;
mod group;
mod missing;
mod pair;
mod pooled;
mod warnings;

pub use arm::{ArmReport, Edge, MeanCost, RatePoint, Spread};
pub use group::{BASELINES, Group};
pub use missing::Missing;
pub use pair::{Comparison, Verdict};
pub use pooled::{Decision, PooledComparison, SCORE_MARGIN, STEPS_MARGIN};

use crate::collect::Collection;
use crate::grid::Point;
use crate::planned::Planned;
use crate::run_record::RunRecord;
use loram_io::gain_curves::GainCurves;
use loram_train::config::LearningRate;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The number of groups in which an arm is better than a baseline, worse, or level with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The interval is on the better side of 0.
    pub better: usize,
    /// The interval contains 0.
    pub level: usize,
    /// The interval is on the worse side of 0.
    pub worse: usize,
    /// No verdict can be given yet.
    pub open: usize,
}

impl Tally {
    /// Number of groups.
    pub fn total(&self) -> usize {
        self.better + self.level + self.worse + self.open
    }
}

/// Tallies of an arm against a baseline over all groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Standing {
    /// The arm.
    pub arm: String,
    /// The baseline.
    pub baseline: String,
    /// Each at its own best learning rate.
    pub at_best: Tally,
    /// Both at the best learning rate of `lora`.
    pub at_fixed: Tally,
}

/// All figures of a comparison.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Analysis {
    /// Arms by model, task and rank.
    pub groups: Vec<Group>,
    /// Arms against baselines.
    pub standings: Vec<Standing>,
    /// Arms against baselines over all tasks, where there are several.
    #[serde(default)]
    pub pooled: Vec<PooledComparison>,
    /// Number of runs of the comparisons that are not there yet.
    pub missing: usize,
    /// Gains of the models' weights by rank, if the comparison has them.
    pub gains: BTreeMap<String, GainCurves>,
}

/// Analyses finished runs.
pub fn analyse(found: &Collection) -> Analysis {
    let runs = &found.runs;
    let place = |p: &Point| (p.model.clone(), p.task.clone(), p.others.clone());
    let mut ranks: BTreeMap<_, BTreeSet<Option<u64>>> = BTreeMap::new();
    for run in runs {
        ranks.entry(place(&run.scores.point)).or_default().insert(run.scores.point.r);
    }
    let mut groups = Vec::new();
    for (of, mut list) in ranks {
        // an arm without rank is in the groups of all ranks
        if list.len() > 1 {
            list.remove(&None);
        }
        for r in list {
            let within = |p: &Point| place(p) == of && (p.r == r || p.r.is_none());
            let members: Vec<&RunRecord> = runs.iter().filter(|run| within(&run.scores.point)).collect();
            groups.push(group(r, &members, &found.planned, &within));
        }
    }
    let standings = standings(&groups);
    let gains = |r: &RunRecord| Some((r.scores.point.model.clone(), r.gains.clone()?));
    let gains = runs.iter().filter_map(gains).collect();
    let pooled = pooled::comparisons(&groups, runs);
    Analysis { missing: missing_runs(found), groups, standings, pooled, gains }
}

/// An arm of one model, task and rank.
fn arm_of(p: &Point) -> Point {
    Point { learning_rate: LearningRate::Auto, seed: 0, rung: None, ..p.clone() }
}

/// The number of runs that are missing. An arm without rank, which is in several groups, counts once.
fn missing_runs(found: &Collection) -> usize {
    let planned = found.planned.iter().flat_map(|p| p.full());
    let mut arms: Vec<Point> = planned.chain(found.runs.iter().map(|r| &r.scores.point)).map(arm_of).collect();
    let mut seen = BTreeSet::new();
    arms.retain(|p| seen.insert(p.id()));
    let count = |arm: &Point| {
        let of = |p: &Point| arm_of(p) == *arm;
        let members: Vec<&RunRecord> = found.runs.iter().filter(|r| of(&r.scores.point)).collect();
        missing::missing(&members, &found.planned, &of).runs
    };
    arms.iter().map(count).sum()
}

fn group(r: Option<u64>, members: &[&RunRecord], planned: &[Planned], within: &dyn Fn(&Point) -> bool) -> Group {
    let (score, place) = (members[0].scores.score.clone(), members[0].scores.point.clone());
    let mut by_arm: BTreeMap<&str, Vec<&RunRecord>> = BTreeMap::new();
    for run in members {
        by_arm.entry(&run.scores.point.arm).or_default().push(run);
    }
    let missing = |arm: &str, runs: &[&RunRecord]| missing::missing(runs, planned, &|p| within(p) && p.arm == arm);
    let shared = missing::shared_seeds(by_arm.values());
    let chosen: BTreeMap<&str, arm::Chosen<'_>> =
        by_arm.iter().map(|(n, runs)| (*n, arm::choose(runs, &shared, missing(n, runs)))).collect();
    let unbegun: BTreeSet<&str> = planned
        .iter()
        .flat_map(|p| p.full())
        .filter(|p| within(p) && !by_arm.contains_key(p.arm.as_str()))
        .map(|p| p.arm.as_str())
        .collect();
    let lora = chosen.get("lora");
    let fixed_rate = lora.and_then(|c| c.best_rate);
    let fixed_open = lora.is_some_and(|c| c.open.is_some());
    let target = lora.and_then(|c| arm::final_loss(&c.runs));
    let mut arms: Vec<ArmReport> = chosen
        .iter()
        .map(|(name, c)| {
            let mut report = arm::report(name, c, target);
            for baseline in BASELINES.iter().filter(|b| *b != name) {
                let Some(other) = chosen.get(baseline) else { continue };
                let open = c.open.is_some() || other.open.is_some();
                let best = pair::compare(&score, &c.runs, &other.runs, open);
                report.versus.extend(best.map(|found| (baseline.to_string(), found)));
                let fixed = fixed_rate.and_then(|rate| pair::compare(&score, &c.at(rate), &other.at(rate), fixed_open));
                report.versus_fixed.extend(fixed.map(|found| (baseline.to_string(), found)));
            }
            report.fixed = fixed_rate.and_then(|rate| arm::Spread::of(&c.at(rate), |s| s.test_score()));
            report
        })
        .collect();
    let key = |a: &ArmReport| a.score.as_ref().map(|s| if score.more_is_better { -s.mean } else { s.mean });
    arms.sort_by(|a, b| key(a).unwrap_or(f64::INFINITY).total_cmp(&key(b).unwrap_or(f64::INFINITY)));
    let count = |f: fn(&RunRecord) -> Option<u64>| members.iter().filter_map(|r| f(r)).max().unwrap_or(0);
    let found = warnings::Found { members, arms: &arms, seeds: &shared, unbegun: &unbegun };
    Group {
        model: place.model,
        task: place.task,
        r,
        others: place.others,
        warnings: found.warnings(),
        seeds: shared.iter().copied().collect(),
        separate: members.iter().all(|m| m.separate),
        selection_examples: count(|r| Some(r.scores.selection.as_ref()?.examples)),
        test_examples: count(|r| Some(r.scores.test.as_ref()?.examples)),
        missing: arms.iter().map(|a| a.missing.runs).sum::<usize>()
            + unbegun.iter().map(|arm| missing(arm, &[]).runs).sum::<usize>(),
        arms,
        fixed_rate,
        score,
    }
}

fn standings(groups: &[Group]) -> Vec<Standing> {
    let mut out: BTreeMap<(String, String), Standing> = BTreeMap::new();
    for arm in groups.iter().flat_map(|g| &g.arms) {
        for (list, fixed) in [(&arm.versus, false), (&arm.versus_fixed, true)] {
            for (baseline, c) in list {
                let entry = out.entry((baseline.clone(), arm.arm.clone())).or_insert_with(|| Standing {
                    arm: arm.arm.clone(),
                    baseline: baseline.clone(),
                    at_best: Tally::default(),
                    at_fixed: Tally::default(),
                });
                let tally = if fixed { &mut entry.at_fixed } else { &mut entry.at_best };
                match c.verdict {
                    Verdict::Better => tally.better += 1,
                    Verdict::Level => tally.level += 1,
                    Verdict::Worse => tally.worse += 1,
                    Verdict::Open => tally.open += 1,
                }
            }
        }
    }
    out.into_values().collect()
}
