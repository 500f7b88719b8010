//! Runs that are not there yet, and the seeds that all arms have.

use crate::grid::{Halving, Point};
use crate::planned::Planned;
use crate::run_record::RunRecord;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Runs of an arm that are not there yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Missing {
    /// Their number.
    pub runs: usize,
    /// Learning rate and seed of each; with successive halving they are only counted.
    pub points: Vec<(f64, u64)>,
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
    let there: BTreeSet<(u64, u64)> = runs.iter().filter(full).map(|r| coordinates(&r.scores.point)).collect();
    let listed: BTreeSet<(u64, u64)> = match plans.is_empty() {
        false => plans.iter().flat_map(|p| &p.points).map(|p| coordinates(p)).collect(),
        true if runs.iter().all(|r| r.separate) => product(&there),
        true => BTreeSet::new(),
    };
    match plans.iter().find_map(|p| p.halving) {
        Some(halving) => of_halving(runs, &there, &listed, halving),
        None => {
            let lacking: Vec<(u64, u64)> = listed.difference(&there).copied().collect();
            let begun: BTreeSet<u64> = there.iter().map(|p| p.0).collect();
            let unbegun: BTreeSet<u64> = lacking.iter().map(|p| p.0).filter(|rate| !begun.contains(rate)).collect();
            let points = lacking.iter().map(|p| (f64::from_bits(p.0), p.1)).collect::<Vec<_>>();
            Missing { runs: points.len(), points, rates: unbegun.len() }
        }
    }
}

/// Learning rate (its bits, which sort as positive numbers do) and seed.
fn coordinates(p: &Point) -> (u64, u64) {
    (p.learning_rate.to_bits(), p.seed)
}

fn product(there: &BTreeSet<(u64, u64)>) -> BTreeSet<(u64, u64)> {
    let seeds: BTreeSet<u64> = there.iter().map(|p| p.1).collect();
    there.iter().flat_map(|p| seeds.iter().map(move |s| (p.0, *s))).collect()
}

/// With halving it is open which learning rates get full runs, but not how many.
fn of_halving(
    runs: &[&RunRecord],
    there: &BTreeSet<(u64, u64)>,
    listed: &BTreeSet<(u64, u64)>,
    halving: Halving,
) -> Missing {
    let distinct =
        |list: &BTreeSet<(u64, u64)>, of: fn(&(u64, u64)) -> u64| list.iter().map(of).collect::<BTreeSet<_>>();
    let seeds = distinct(listed, |p| p.1).len();
    let rounds = Planned::rounds(Some(halving), distinct(listed, |p| p.0).len());
    let mut out = Missing::default();
    for (rung, rates) in rounds[..rounds.len() - 1].iter().enumerate() {
        let done = runs.iter().filter(|r| r.scores.point.rung == Some(rung)).count();
        out.runs += rates.saturating_sub(done);
    }
    let survivors = rounds[rounds.len() - 1];
    out.runs += (survivors * seeds).saturating_sub(there.len());
    out.rates = survivors.saturating_sub(distinct(there, |p| p.0).len());
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
