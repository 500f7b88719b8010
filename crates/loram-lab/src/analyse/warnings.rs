//! Warnings about the figures of a group.

use super::arm::{ArmReport, Edge};
use crate::run_record::RunRecord;
use crate::stats::Resampled;
use loram_train::config::LearningRate;
use std::collections::BTreeSet;

/// Test records below which an interval is called rough.
const FEW_RECORDS: usize = 30;
/// Missing runs that are listed one by one.
const LISTED: usize = 6;

/// Findings about a group.
pub(super) struct Found<'a> {
    pub members: &'a [&'a RunRecord],
    pub arms: &'a [ArmReport],
    /// Seeds that all arms have.
    pub seeds: &'a BTreeSet<u64>,
    /// Arms without any run yet.
    pub unbegun: &'a BTreeSet<&'a str>,
}

impl Found<'_> {
    pub fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.of_missing(&mut out);
        self.of_data(&mut out);
        self.of_rates(&mut out);
        out
    }

    fn of(&self, which: impl Fn(&ArmReport) -> bool) -> Option<String> {
        let names: Vec<&str> = self.arms.iter().filter(|a| which(a)).map(|a| a.arm.as_str()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Runs that are missing, and what that means for verdicts and seeds.
    fn of_missing(&self, out: &mut Vec<String>) {
        for a in self.arms.iter().filter(|a| a.missing.runs > 0) {
            let mut list: Vec<String> =
                a.missing.points.iter().take(LISTED).map(|(rate, seed)| format!("{rate} seed {seed}")).collect();
            if a.missing.points.len() > LISTED {
                list.push("…".into());
            }
            let list = if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) };
            out.push(match a.missing.runs {
                1 => format!("A run of {} is missing{list}.", a.arm),
                n => format!("{n} runs of {} are missing{list}.", a.arm),
            });
        }
        if !self.unbegun.is_empty() {
            let names: Vec<&str> = self.unbegun.iter().copied().collect();
            out.push(format!("No run is there yet of {}.", names.join(", ")));
        }
        for a in self.arms {
            if let Some(why) = &a.open {
                out.push(format!("No verdict on {} yet: {why}.", a.arm));
            }
        }
        let full = self.members.iter().filter(|r| r.scores.point.rung.is_none());
        let own: BTreeSet<u64> = full.map(|r| r.scores.point.seed).filter(|s| !self.seeds.contains(s)).collect();
        if !own.is_empty() {
            let list: Vec<String> = own.iter().map(u64::to_string).collect();
            out.push(format!("Runs with seeds that not all arms have are left out: {}.", list.join(", ")));
        }
    }

    fn of_data(&self, out: &mut Vec<String>) {
        if self.members.iter().any(|m| !m.separate) {
            out.push(
                "Learning rates were chosen on the data on which the score was computed: these are not runs of \
                 `loram compare`, which uses separate data. Scores are too good by an unknown amount."
                    .into(),
            );
        }
        if let Some(names) = self.of(|a| a.seeds.len() < 3 && a.score.is_some()) {
            out.push(format!("Fewer than three seeds: {names}."));
        }
        let drawn = self.arms.iter().any(|a| a.interval.is_some_and(|i| i.resampled != Resampled::Seeds));
        let examples = self.members.iter().filter_map(|m| m.scores.examples.as_ref()).map(|e| e.len()).min();
        if let (true, Some(n)) = (drawn, examples.filter(|n| *n < FEW_RECORDS)) {
            out.push(format!(
                "Intervals are drawn from {n} test records. From fewer than {FEW_RECORDS} they are rough, and too narrow more \
                 often than not."
            ));
        }
        let data: BTreeSet<&Vec<String>> = self.members.iter().map(|m| &m.scores.data).collect();
        if data.len() > 1 {
            out.push("Runs were scored on different held-out files; they are compared by seeds only.".into());
        }
    }

    fn of_rates(&self, out: &mut Vec<String>) {
        for (edge, word) in [(Edge::Lowest, "lowest"), (Edge::Highest, "highest")] {
            if let Some(names) = self.of(|a| a.edge == Some(edge)) {
                out.push(format!(
                    "The best learning rate is the {word} one of the grid, so that a better one may lie beyond it: {names}."
                ));
            }
        }
        if let Some(names) =
            self.of(|a| a.rates.len() < 2 && a.rates.iter().all(|p| p.learning_rate != LearningRate::Auto))
        {
            out.push(format!("Run at one learning rate only: {names}."));
        }
        if let Some(names) = self.of(ArmReport::has_short_runs_only) {
            out.push(format!("Only the short runs of successive halving are scored so far: {names}."));
        }
        if let Some(names) = self.of(|a| a.score.is_none() && !a.has_short_runs_only()) {
            out.push(format!("Diverged at every learning rate: {names}."));
        }
    }
}
