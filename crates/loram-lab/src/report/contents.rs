//! The sections of a report.

use super::figure::{Figure, Place, view};
use super::groups;
use super::page::{Block, Cell, Page, PlotView, Section, Table};
use super::pooled;
use crate::analyse::{Analysis, BASELINES, Standing, Tally};
use crate::collect::Collection;
use crate::run_record::RunRecord;
use loram_train::config::{Mark, keys, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The whole report.
pub(super) fn page(title: &str, found: &Collection, analysis: &Analysis, figures: &[Figure]) -> Page {
    let runs = &found.runs;
    let mut sections = vec![overview(found, analysis)];
    sections.extend(pooled::section(analysis, figures));
    for (i, group) in analysis.groups.iter().enumerate() {
        let own: Vec<&Figure> = figures.iter().filter(|f| f.place == Place::Group(i)).collect();
        sections.push(groups::section(group, &own));
    }
    sections.extend(gains(figures));
    sections.push(method());
    sections.push(configuration(runs));
    sections.push(environment(runs));
    Page { title: title.into(), summary: summary(runs, analysis), sections }
}

fn several(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The number of runs, arms, models and tasks in a sentence.
fn summary(runs: &[RunRecord], analysis: &Analysis) -> String {
    let full = runs.iter().filter(|r| r.scores.point.rung.is_none()).count();
    let distinct = |f: fn(&RunRecord) -> &String| runs.iter().map(f).collect::<BTreeSet<_>>().len();
    let (shorts, missing) = (runs.len() - full, analysis.missing);
    let out = match (shorts, missing) {
        (0, 0) => several(full, "run"),
        (0, _) => format!("{full} of {}", several(full + missing, "run")),
        _ => {
            let missing = if missing > 0 { format!(", {missing} missing") } else { String::new() };
            format!("{} and {} of successive halving{missing}", several(full, "run"), several(shorts, "short run"))
        }
    };
    out + &format!(
        ": {} on {} and {}.",
        several(distinct(|r| &r.scores.point.arm), "arm"),
        several(distinct(|r| &r.scores.point.model), "model"),
        several(distinct(|r| &r.scores.point.task), "task")
    )
}

fn overview(found: &Collection, analysis: &Analysis) -> Section {
    let mut section = Section { anchor: "overview".into(), title: "Overview".into(), ..Section::default() };
    if analysis.missing > 0 {
        section.warnings.push(format!(
            "{} of {} runs {} missing. Verdicts that depend on them are open; call `loram compare` with the grid file again \
             to train them.",
            analysis.missing,
            found.runs.len() + analysis.missing,
            if analysis.missing == 1 { "is" } else { "are" }
        ));
    }
    if !found.repeated.is_empty() {
        let list: Vec<String> = found.repeated.iter().map(|d| format!("`{}`", d.display())).collect();
        section
            .warnings
            .push(format!("Left out, since another run has the same settings and the same seed: {}.", list.join(", ")));
    }
    if analysis.standings.is_empty() {
        section.paragraphs.push(
            "No arm named `lora` or `pissa` shares seeds with another arm, so that there is no comparison with a baseline."
                .into(),
        );
        return section;
    }
    for baseline in BASELINES {
        let arms: Vec<&Standing> = analysis.standings.iter().filter(|s| s.baseline == baseline).collect();
        section.paragraphs.extend((!arms.is_empty()).then(|| conclusion(baseline, &arms)));
    }
    section.blocks.push(Block::Table(standings(analysis)));
    section
}

/// The verdicts against a baseline in a sentence.
fn conclusion(baseline: &str, arms: &[&Standing]) -> String {
    // arms with the same verdicts together, the best first
    let mut verdicts: Vec<(String, Vec<String>)> = Vec::new();
    for s in arms.iter().filter(|s| s.at_best.total() > 0) {
        let (verdict, name) = (verdict(&s.at_best), format!("`{}`", s.arm));
        match verdicts.iter_mut().find(|v| v.0 == verdict) {
            Some((_, names)) => names.push(name),
            None => verdicts.push((verdict, vec![name])),
        }
    }
    let list: Vec<String> = verdicts
        .into_iter()
        .map(|(verdict, names)| match &names[..] {
            [one] => format!("{one} is {verdict}"),
            [all @ .., last] => format!("{} and {last} are {verdict}", all.join(", ")),
            [] => String::new(),
        })
        .collect();
    format!("Compared with `{baseline}`, each arm at its own best learning rate: {}.", list.join("; "))
}

/// `better in 2 of 3 groups, worse in 1 of 3 groups`.
fn verdict(t: &Tally) -> String {
    let total = t.total();
    let kinds = [
        (t.better, "better"),
        (t.worse, "worse"),
        (t.level, "not distinguishable from it"),
        (t.open, "not decided yet"),
    ];
    let there = kinds.iter().filter(|k| k.0 > 0);
    let part = |(n, word): &(usize, &str)| match (*n == total, total) {
        (true, 1) => word.to_string(),
        (true, 2) => format!("{word} in both groups"),
        (true, _) => format!("{word} in all {total} groups"),
        _ => format!("{word} in {n} of {total} groups"),
    };
    there.map(part).collect::<Vec<_>>().join(", ")
}

fn standings(analysis: &Analysis) -> Table {
    let mut table = Table::new(
        "Number of groups (model, task, rank) in which an arm is better than the baseline · level with it · worse, by the 95 % \
         interval of the difference.",
        &["arm", "against", "each at its best learning rate", "both at lora's best learning rate"],
    );
    for Standing { arm, baseline, at_best, at_fixed } in &analysis.standings {
        let tally = |t: &Tally| Cell {
            text: match t.open {
                0 => format!("{} · {} · {}", t.better, t.level, t.worse),
                n if n == t.total() => "open".into(),
                n => format!("{} · {} · {}, {n} open", t.better, t.level, t.worse),
            },
            tone: match (t.better > 0, t.worse > 0) {
                (true, false) => "good",
                (false, true) => "bad",
                _ => "",
            },
        };
        table.push(vec![arm.clone().into(), baseline.clone().into(), tally(at_best), tally(at_fixed)], false);
    }
    table.columns[1].number = false;
    table
}

/// The gain of LoRAM compared with the spectra of the weights.
fn gains(figures: &[Figure]) -> Option<Section> {
    let plots: Vec<PlotView> = figures.iter().filter(|f| f.place == Place::Gains).map(view).collect();
    (!plots.is_empty()).then(|| Section {
        anchor: "gains".into(),
        title: "Gains of the weights".into(),
        paragraphs: vec![
            "Q[r] is the share of a weight's magnitude that an initialisation of rank r has: for PiSSA (Σσᵢ)² / (r·Σσᵢ²) over the \
             first r and over all singular values, for LoRAM a logarithm (default) or the sketch."
                .into(),
        ],
        blocks: vec![Block::Plots { plots }],
        ..Section::default()
    })
}

fn method() -> Section {
    let paragraphs = [
        "Learning rates: every arm is reported at the learning rate with the best mean score over seeds on the selection part of \
         the held-out data. Its score is that of the same runs on the test part, on which nothing was chosen. Only seeds that all \
         arms have are taken. Learning rates at which fewer seeds finished than at others are not considered; while one that \
         lacks runs may still turn out better than the chosen one, there is no verdict (open).",
        "± is the standard deviation over seeds (divisor n − 1).",
        "Intervals: 2000 bootstrap replicates. A replicate draws, with replacement, as many test examples as there are, one \
         draw for all seeds, and as many seeds as there are, and takes the mean over these seeds of the metric over these \
         examples. For a difference, both arms use the same draws of seeds and examples that they share. The interval is the \
         range from the 2.5 % to the 97.5 % quantile. With a single seed only examples are drawn, and the interval does not \
         cover variation between seeds; without results for single examples only seeds are drawn.",
        "The height of a loss curve is the area under it (trapezoids between the evaluations on the selection part) divided by \
         the steps: lower means faster convergence. Steps to lora's loss: the first step at which a run's curve, interpolated \
         linearly, reaches the mean final loss of `lora`, both at their best learning rates.",
        "Forgetting is the loss on text of the base model's own domain after training minus that before. Init: seconds to \
         initialise the adapters. Memory: peak of the process. Disk: the saved adapter (the model in full fine-tuning); \
         checkpoint: the files to resume from.",
    ];
    Section {
        anchor: "method".into(),
        title: "Method".into(),
        paragraphs: paragraphs.iter().map(|p| p.to_string()).collect(),
        ..Section::default()
    }
}

/// Keys that differ from their defaults in some run.
fn configuration(runs: &[RunRecord]) -> Section {
    let mut values: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for key in keys().iter().filter(|k| !k.is(Mark::Folder) && !k.is(Mark::Input)) {
        let of = |r: &RunRecord| r.config.get(key.name).unwrap_or(Value::Null);
        let all: BTreeSet<String> = runs.iter().map(|r| yaml(&of(r))).collect();
        if all.len() > 1 || all.first().is_some_and(|v| *v != yaml(&key.default)) {
            values.insert(key.name, all);
        }
    }
    let mut table =
        Table::new("Keys with other values than their defaults, and all values that occur.", &["key", "values"]);
    for (key, all) in values {
        let cut = all.len() > 12;
        let mut text = all.into_iter().take(12).collect::<Vec<_>>().join(", ");
        if cut {
            text += ", …";
        }
        table.push(vec![key.to_string().into(), text.into()], false);
    }
    table.columns[1].number = false;
    Section {
        anchor: "configuration".into(),
        title: "Configuration".into(),
        paragraphs: vec![
            "`config.yaml` in each run folder has every key of that run; `loram train` on it repeats the run.".into(),
        ],
        blocks: vec![Block::Table(table)],
        ..Section::default()
    }
}

fn environment(runs: &[RunRecord]) -> Section {
    let mut table = Table::new("", &["what", "value"]);
    table.columns[1].number = false;
    let mut add = |name: &str, values: BTreeSet<String>| {
        if !values.is_empty() {
            table.push(vec![name.to_string().into(), values.into_iter().collect::<Vec<_>>().join("; ").into()], false);
        }
    };
    let texts = |f: &dyn Fn(&Value) -> Option<String>| runs.iter().filter_map(|r| f(&r.environment)).collect();
    add("loram", texts(&|e| e["loram"].as_str().map(String::from)));
    add("processor", texts(&|e| e["cpu"].as_str().map(String::from)));
    add("threads of a run", texts(&|e| e["threads"].as_u64().map(|n| n.to_string())));
    add("system", texts(&|e| Some(format!("{} {}", e["os"].as_str()?, e["arch"].as_str()?))));
    add("model", texts(&|e| Some(format!("{} ({})", e["model"]["name"].as_str()?, e["model"]["family"].as_str()?))));
    let mut files = BTreeSet::new();
    for run in runs {
        for f in run.environment["data"].as_array().into_iter().flatten() {
            let sum =
                f["sha256"].as_str().map_or("generated".to_string(), |s| format!("sha256 {}…", &s[..s.len().min(16)]));
            files.insert((f["path"].as_str().unwrap_or("").to_string(), sum));
        }
    }
    let mut data = Table::new("Training and selection data.", &["file", "checksum"]);
    data.columns[1].number = false;
    files.into_iter().for_each(|(path, sum)| data.push(vec![path.into(), sum.into()], false));
    Section {
        anchor: "environment".into(),
        title: "Environment".into(),
        blocks: vec![Block::Table(table), Block::Table(data)],
        ..Section::default()
    }
}
