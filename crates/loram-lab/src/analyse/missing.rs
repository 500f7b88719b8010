//! Runs that are not there yet, and the seeds that all arms have.

use crate::grid::{Halving, Point};
use crate::planned::Planned;
use crate::run_record::RunRecord;
use loram_train::config::LearningRate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Runs of an arm that are not there yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// Their number.
    pub runs: usize,
    /// Learning rate and seed of each; with successive halving they are only counted.
    pub points: Vec<(LearningRate, u64)>,
    /// Learning rates of which not even one run is there.
    pub rates: usize,
}

/// A comparison's runs of one arm.
struct Plan<'a> {
    halving: Option<Halving>,
    points: Vec<&'a Point>,
}

/// The runs of an arm that are missing, from the list that its comparison keeps. Without such a list: the seeds that the arm
/// has at one learning rate and not at another. Runs of `loram train` let nothing be expected.
pub(super) fn missing(runs: &[&RunRecord], planned: &[Planned], of: &dyn Fn(&Point) -> bool) -> Missing {
    let plans: Vec<Plan<'_>> = planned
        .iter()
        .map(|p| Plan { halving: p.halving, points: p.full().filter(|p| of(p)).collect() })
        .filter(|p| !p.points.is_empty())
        .collect();
    let full = |r: &&&RunRecord| r.scores.point.rung.is_none();
    let there: BTreeSet<Place> = runs.iter().filter(full).map(|r| coordinates(&r.scores.point)).collect();
    let listed: BTreeSet<Place> = match plans.is_empty() {
        false => plans.iter().flat_map(|p| &p.points).map(|p| coordinates(p)).collect(),
        true if runs.iter().all(|r| r.separate) => product(&there),
        true => BTreeSet::new(),
    };
    match plans.iter().find_map(|p| p.halving) {
        Some(halving) => of_halving(runs, &there, &listed, halving),
        None => {
            let lacking: Vec<Place> = listed.difference(&there).copied().collect();
            let begun: BTreeSet<LearningRate> = there.iter().map(|p| p.0).collect();
            let unbegun: BTreeSet<LearningRate> =
                lacking.iter().map(|p| p.0).filter(|rate| !begun.contains(rate)).collect();
            Missing { runs: lacking.len(), points: lacking, rates: unbegun.len() }
        }
    }
}

/// Learning rate and seed.
type Place = (LearningRate, u64);

fn coordinates(p: &Point) -> Place {
    (p.learning_rate, p.seed)
}

fn product(there: &BTreeSet<Place>) -> BTreeSet<Place> {
    let seeds: BTreeSet<u64> = there.iter().map(|p| p.1).collect();
    there.iter().flat_map(|p| seeds.iter().map(move |s| (p.0, *s))).collect()
}

/// With halving it is open which learning rates get full runs, but not how many, except that `auto`, where it is kept, may be one of
/// the best.
fn of_halving(runs: &[&RunRecord], there: &BTreeSet<Place>, listed: &BTreeSet<Place>, halving: Halving) -> Missing {
    let rates = |list: &BTreeSet<Place>| list.iter().map(|p| p.0).collect::<BTreeSet<_>>().len();
    let seeds = listed.iter().map(|p| p.1).collect::<BTreeSet<_>>().len();
    let rounds = Planned::rounds(Some(halving), rates(listed));
    let mut out = Missing::default();
    for (rung, tried) in rounds[..rounds.len() - 1].iter().enumerate() {
        let done = runs.iter().filter(|r| r.scores.point.rung == Some(rung)).count();
        out.runs += tried.saturating_sub(done);
    }
    let survivors = rounds[rounds.len() - 1];
    out.runs += (survivors * seeds).saturating_sub(there.len());
    out.rates = survivors.saturating_sub(rates(there));
    out
}

/// The seeds that all arms have; those of any arm if they share none.
pub(super) fn shared_seeds<'a>(arms: impl Iterator<Item = &'a Vec<&'a RunRecord>>) -> BTreeSet<u64> {
    let of = |runs: &Vec<&RunRecord>| -> BTreeSet<u64> {
        runs.iter().filter(|r| r.scores.point.rung.is_none()).map(|r| r.scores.point.seed).collect()
    };
    // an arm with short runs only has no seeds yet
    let all: Vec<BTreeSet<u64>> = arms.map(of).filter(|s| !s.is_empty()).collect();
    let shared = all.iter().cloned().reduce(|a, b| &a & &b).unwrap_or_default();
    match shared.is_empty() {
        true => all.into_iter().flatten().collect(),
        false => shared,
    }
}
