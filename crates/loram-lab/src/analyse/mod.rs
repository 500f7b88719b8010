//! Analyses run records: the best learning rate of every arm, its score, its difference from the baselines.

mod arm;
mod pair;

pub use arm::{ArmReport, MeanCost, RatePoint, Spread};
pub use pair::{Comparison, Verdict};

use crate::collect::RunRecord;
use crate::grid::{Point, Score};
use crate::names::file_name;
use loram_io::gain_curves::GainCurves;
use loram_train::TrainConfig;
use loram_train::config::{Key, Mark, keys};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Names of the arms that all others are compared with.
pub const BASELINES: [&str; 2] = ["lora", "pissa"];

/// The arms of one model, task and rank.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Group {
    /// Model.
    pub model: String,
    /// Task.
    pub task: String,
    /// Rank; absent if no arm has one.
    pub r: Option<u64>,
    /// Other keys that vary.
    pub others: BTreeMap<String, String>,
    /// The metric that runs are judged by.
    pub score: Score,
    /// Seeds that occur.
    pub seeds: Vec<u64>,
    /// Number of records of the selection part; 0 if it is not known.
    pub selection_examples: u64,
    /// Number of records of the test part.
    pub test_examples: u64,
    /// Arms, the best first.
    pub arms: Vec<ArmReport>,
    /// The best learning rate of `lora`, for the comparison at one learning rate.
    pub fixed_rate: Option<f64>,
    /// Warnings for the reader.
    pub warnings: Vec<String>,
}

impl Group {
    /// `task on model, r 16`.
    pub fn title(&self) -> String {
        let mut out = format!("{} on {}", self.task, self.model);
        if let Some(r) = self.r {
            out += &format!(", r {r}");
        }
        for (key, value) in &self.others {
            out += &format!(", {key} {value}");
        }
        out
    }

    /// The name of its files and anchors.
    pub fn slug(&self) -> String {
        file_name(&self.title().replace(", ", "-").replace(' ', "-"))
    }
}

/// The number of groups in which an arm is better than a baseline, worse, or level with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The interval is on the better side of 0.
    pub better: usize,
    /// The interval contains 0.
    pub level: usize,
    /// The interval is on the worse side of 0.
    pub worse: usize,
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
    /// Gains of the models' weights by rank, if the comparison has them.
    pub gains: BTreeMap<String, GainCurves>,
}

/// Analyses finished runs.
pub fn analyse(runs: &[RunRecord]) -> Analysis {
    type Place = (String, String, BTreeMap<String, String>);
    let mut ranks: BTreeMap<Place, BTreeSet<Option<u64>>> = BTreeMap::new();
    for run in runs {
        let p = &run.scores.point;
        ranks.entry((p.model.clone(), p.task.clone(), p.others.clone())).or_default().insert(p.r);
    }
    let mut groups = Vec::new();
    for ((model, task, others), mut list) in ranks {
        // an arm without rank is in the groups of all ranks
        if list.len() > 1 {
            list.remove(&None);
        }
        for r in list {
            let within =
                |p: &Point| (&p.model, &p.task, &p.others) == (&model, &task, &others) && (p.r == r || p.r.is_none());
            let members: Vec<&RunRecord> = runs.iter().filter(|run| within(&run.scores.point)).collect();
            groups.push(group(&model, &task, &others, r, &members));
        }
    }
    let standings = standings(&groups);
    let gains = |r: &RunRecord| Some((r.scores.point.model.clone(), r.gains.clone()?));
    Analysis { groups, standings, gains: runs.iter().filter_map(gains).collect() }
}

fn group(model: &str, task: &str, others: &BTreeMap<String, String>, r: Option<u64>, members: &[&RunRecord]) -> Group {
    let score = members[0].scores.score.clone();
    let mut by_arm: BTreeMap<&str, Vec<&RunRecord>> = BTreeMap::new();
    for run in members {
        by_arm.entry(&run.scores.point.arm).or_default().push(run);
    }
    let chosen: BTreeMap<&str, arm::Chosen<'_>> = by_arm.iter().map(|(n, runs)| (*n, arm::choose(runs))).collect();
    let fixed_rate = chosen.get("lora").and_then(|c| c.best_rate);
    let target = chosen.get("lora").and_then(|c| arm::final_loss(&c.runs));
    let mut arms: Vec<ArmReport> = chosen
        .iter()
        .map(|(name, c)| {
            let mut report = arm::report(name, c, target);
            for baseline in BASELINES.iter().filter(|b| *b != name) {
                let Some(other) = chosen.get(baseline) else { continue };
                let best = pair::compare(&score, &c.runs, &other.runs);
                report.versus.extend(best.map(|found| (baseline.to_string(), found)));
                let fixed = fixed_rate.and_then(|rate| pair::compare(&score, &c.at(rate), &other.at(rate)));
                report.versus_fixed.extend(fixed.map(|found| (baseline.to_string(), found)));
            }
            report.fixed = fixed_rate.and_then(|rate| arm::Spread::of(&c.at(rate), |s| s.test_score()));
            report
        })
        .collect();
    let key = |a: &ArmReport| a.score.as_ref().map(|s| if score.more_is_better { -s.mean } else { s.mean });
    arms.sort_by(|a, b| key(a).unwrap_or(f64::INFINITY).total_cmp(&key(b).unwrap_or(f64::INFINITY)));
    let count = |f: fn(&RunRecord) -> Option<u64>| members.iter().filter_map(|r| f(r)).max().unwrap_or(0);
    let seeds: BTreeSet<u64> = members.iter().map(|r| r.scores.point.seed).collect();
    Group {
        model: model.into(),
        task: task.into(),
        r,
        others: others.clone(),
        seeds: seeds.into_iter().collect(),
        selection_examples: count(|r| Some(r.scores.selection.as_ref()?.examples)),
        test_examples: count(|r| Some(r.scores.test.as_ref()?.examples)),
        warnings: warnings(members, &arms),
        arms,
        fixed_rate,
        score,
    }
}

fn warnings(members: &[&RunRecord], arms: &[ArmReport]) -> Vec<String> {
    let mut out = Vec::new();
    let names = |list: Vec<&ArmReport>| list.iter().map(|a| a.arm.as_str()).collect::<Vec<_>>().join(", ");
    let of = |f: fn(&ArmReport) -> bool| arms.iter().filter(|a| f(a)).collect::<Vec<_>>();
    if members.iter().any(|m| !m.separate) {
        out.push(
            "Learning rates were chosen on the data on which the score was computed: these are not runs of \
             `loram compare`, which uses separate data. Scores are too good by an unknown amount."
                .into(),
        );
    }
    let few = of(|a| a.seeds.len() < 3 && a.score.is_some());
    if !few.is_empty() {
        out.push(format!("Fewer than three seeds: {}.", names(few)));
    }
    for (edge, word) in [(arm::Edge::Lowest, "lowest"), (arm::Edge::Highest, "highest")] {
        let list: Vec<&ArmReport> = arms.iter().filter(|a| a.edge == Some(edge)).collect();
        if !list.is_empty() {
            out.push(format!(
                "The best learning rate is the {word} one of the grid, so that a better one may lie beyond it: {}.",
                names(list)
            ));
        }
    }
    let single = of(|a| a.rates.len() < 2);
    if !single.is_empty() {
        out.push(format!("Run at one learning rate only: {}.", names(single)));
    }
    let waiting = of(ArmReport::has_short_runs_only);
    if !waiting.is_empty() {
        out.push(format!("Only the short runs of successive halving are scored so far: {}.", names(waiting)));
    }
    let none = of(|a| a.score.is_none() && !a.has_short_runs_only());
    if !none.is_empty() {
        out.push(format!("Diverged at every learning rate: {}.", names(none)));
    }
    for arm in arms {
        let keys = differing_keys(members, &arm.arm);
        if !keys.is_empty() {
            out.push(format!("Runs of {} differ in more than learning rate and seed: {}.", arm.arm, keys.join(", ")));
        }
    }
    let data: BTreeSet<&Vec<String>> = members.iter().map(|m| &m.scores.data).collect();
    if data.len() > 1 {
        out.push("Runs were scored on different held-out files; they are compared by seeds only.".into());
    }
    out
}

/// Keys in which full runs of an arm differ, although the report does not tell them apart.
fn differing_keys(members: &[&RunRecord], arm: &str) -> Vec<&'static str> {
    let own = |r: &&&RunRecord| r.scores.point.arm == arm && r.scores.point.rung.is_none();
    let configs: Vec<&TrainConfig> = members.iter().filter(own).map(|r| &r.config).collect();
    let Some(first) = configs.first() else { return Vec::new() };
    let differs = |key: &&Key| configs.iter().any(|c| c.get(key.name) != first.get(key.name));
    let compared = keys().iter().filter(|k| !k.is(Mark::Axis) && !k.is(Mark::Folder));
    compared.filter(differs).map(|k| k.name).collect()
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
                }
            }
        }
    }
    out.into_values().collect()
}
