//! The sections of a report.

use super::figures::{Figure, view};
use super::groups;
use super::page::{Block, Cell, Page, PlotView, Section, Table};
use crate::analyse::{Analysis, Standing, Tally};
use crate::collect::RunRecord;
use loram_train::config::{Mark, keys, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The whole report.
pub(super) fn page(title: &str, runs: &[RunRecord], analysis: &Analysis, figures: &[Figure]) -> Page {
    let full = runs.iter().filter(|r| r.scores.point.rung.is_none()).count();
    let distinct = |f: fn(&RunRecord) -> &String| runs.iter().map(f).collect::<BTreeSet<_>>().len();
    let several = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
    let mut summary = format!(
        "{}: {} on {} and {}",
        several(full, "run"),
        several(distinct(|r| &r.scores.point.arm), "arm"),
        several(distinct(|r| &r.scores.point.model), "model"),
        several(distinct(|r| &r.scores.point.task), "task")
    );
    if full < runs.len() {
        summary += &format!("; {} of successive halving before them", several(runs.len() - full, "short run"));
    }
    let mut sections = vec![overview(analysis)];
    for (i, group) in analysis.groups.iter().enumerate() {
        let own: Vec<&Figure> = figures.iter().filter(|f| f.group == Some(i)).collect();
        sections.push(groups::section(group, &own));
    }
    sections.extend(gains(figures));
    sections.push(method());
    sections.push(configuration(runs));
    sections.push(environment(runs));
    Page { title: title.into(), summary: summary + ".", sections }
}

fn overview(analysis: &Analysis) -> Section {
    let mut table = Table::new(
        "Number of groups (model, task, rank) in which an arm is better than the baseline · level with it · worse, by the 95 % \
         interval of the difference.",
        &["arm", "against", "each at its best learning rate", "both at lora's best learning rate"],
    );
    for Standing { arm, baseline, at_best, at_fixed } in &analysis.standings {
        let tally = |t: &Tally| Cell {
            text: format!("{} · {} · {}", t.better, t.level, t.worse),
            tone: match (t.better > 0, t.worse > 0) {
                (true, false) => "good",
                (false, true) => "bad",
                _ => "",
            },
        };
        table.push(vec![arm.clone().into(), baseline.clone().into(), tally(at_best), tally(at_fixed)], false);
    }
    table.columns[1].number = false;
    let mut section = Section { anchor: "short".into(), title: "Overview".into(), ..Section::default() };
    if table.rows.is_empty() {
        section.paragraphs.push(
            "No arm named `lora` or `pissa` shares seeds with another arm, so that there is no comparison with a baseline."
                .into(),
        );
    } else {
        section.blocks.push(Block::Table(table));
    }
    section
}

/// The gain of LoRAM compared with the spectra of the weights.
fn gains(figures: &[Figure]) -> Option<Section> {
    let plots: Vec<PlotView> = figures.iter().filter(|f| f.group.is_none()).map(view).collect();
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
         the held-out data. Its score is that of the same runs on the test part, on which nothing was chosen. Learning rates at \
         which fewer seeds finished than at others are not considered.",
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
