//! Runs with other settings are other arms: names by which a report tells them apart, and runs that are there twice.

use crate::grid::Point;
use crate::planned::Planned;
use crate::run_record::RunRecord;
use loram_train::config::{Key, Mark, keys, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The values of the settings by which runs are told apart.
type Settings = BTreeMap<&'static str, String>;

fn settings(run: &RunRecord) -> Settings {
    // the data of a task have other paths in each output folder, and the task has a name
    let told = |k: &&Key| k.tells_arms_apart() && !(run.separate && k.is(Mark::Input)) && k.name != MODEL;
    let value = |k: &Key| yaml(&run.config.get(k.name).unwrap_or(Value::Null));
    keys().iter().filter(told).map(|k| (k.name, value(k))).collect()
}

/// Paths to one model differ between machines; a report names models.
const MODEL: &str = "model_name_or_path";

/// The output folder of the comparison that a run belongs to.
pub(crate) fn comparison(run: &RunRecord) -> Option<&Path> {
    run.dir.parent().and_then(Path::parent).filter(|_| run.separate)
}

/// Removes runs that are there twice, with the same settings, learning rate and seed: gathered folders, and runs of
/// `loram train` that were repeated. Returns the folders of the latter.
pub(crate) fn remove_repeated(runs: &mut Vec<RunRecord>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut repeated = Vec::new();
    runs.retain(|r| {
        let first = seen.insert((r.scores.point.id(), settings(r)));
        if !first && !r.separate {
            repeated.push(r.dir.clone());
        }
        first
    });
    repeated
}

/// Gives runs of one arm that differ in their settings names of their own: the arm's name for the settings that are defaults
/// everywhere, `lora (weight_decay 0.1)` for the others.
/// `planned` are the comparisons, by output folder.
pub(crate) fn tell_apart(runs: &mut [RunRecord], planned: &mut BTreeMap<PathBuf, Planned>) {
    let place = |p: &Point| (p.model.clone(), p.task.clone(), p.others.clone(), p.r, p.arm.clone());
    let mut arms: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        arms.entry(place(&run.scores.point)).or_default().push(i);
    }
    for (of, members) in arms {
        let full: Vec<usize> = members.iter().copied().filter(|&i| runs[i].scores.point.rung.is_none()).collect();
        let all: Vec<(usize, Settings)> = full.iter().map(|&i| (i, settings(&runs[i]))).collect();
        let Some((_, first)) = all.first() else { continue };
        let differing: Vec<&'static str> =
            first.keys().copied().filter(|k| all.iter().any(|(_, s)| s[k] != first[k])).collect();
        if differing.is_empty() {
            continue;
        }
        let mut names: BTreeMap<Option<PathBuf>, String> = BTreeMap::new();
        for (i, values) in &all {
            let name = variant(&runs[*i].scores.point.arm, &differing, values);
            names.insert(comparison(&runs[*i]).map(Path::to_path_buf), name.clone());
            runs[*i].scores.point.arm = name;
        }
        // short runs have other steps; they belong to the full runs of their comparison
        for i in members.into_iter().filter(|i| !full.contains(i)) {
            if let Some(name) = names.get(&comparison(&runs[i]).map(Path::to_path_buf)) {
                runs[i].scores.point.arm.clone_from(name);
            }
        }
        for (output, plan) in planned.iter_mut() {
            let Some(name) = names.get(&Some(output.clone())) else { continue };
            plan.runs.iter_mut().filter(|p| place(p) == of).for_each(|p| p.arm.clone_from(name));
        }
    }
}

fn variant(arm: &str, differing: &[&'static str], values: &Settings) -> String {
    let default = |key: &str| keys().iter().find(|k| k.name == key).map(|k| yaml(&k.default));
    let other = differing.iter().filter(|k| default(k).as_ref() != Some(&values[*k]));
    let list: Vec<String> = other.map(|k| format!("{k} {}", values[k])).collect();
    match list.is_empty() {
        true => arm.to_string(),
        false => format!("{arm} ({})", list.join(", ")),
    }
}
