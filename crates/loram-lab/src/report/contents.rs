//! The sections of a report.

use super::figures::{Figure, view};
use super::groups;
use super::page::{Block, Cell, Page, PlotView, Section, Table};
use crate::analyse::{Analysis, Standing, Tally};
use crate::collect::RunRecord;
use loram_train::config::{Mark, keys, yaml};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Puts everything in order.
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
        "In how many groups (model, task, rank) an arm's 95 % interval lies on the better side of the baseline · holds no \
         difference · lies on the worse side.",
        &["arm", "against", "each at its best rate", "both at lora's best rate"],
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
    let mut section = Section { anchor: "short".into(), title: "In short".into(), ..Section::default() };
    if table.rows.is_empty() {
        section.paragraphs.push(
            "There is no arm named `lora` or `pissa` with seeds in common with another arm, so that nothing is compared with a \
             baseline here."
                .into(),
        );
    } else {
        section.blocks.push(Block::Table(table));
    }
    section
}

/// How large LoRAM's starts are, against the spectra of the weights.
fn gains(figures: &[Figure]) -> Option<Section> {
    let plots: Vec<PlotView> = figures.iter().filter(|f| f.group.is_none()).map(view).collect();
    (!plots.is_empty()).then(|| Section {
        anchor: "gains".into(),
        title: "Gains of the weights".into(),
        paragraphs: vec![
            "Q[r] is the share of a weight's magnitude that a start of rank r takes: (Σσᵢ)² / (r·Σσᵢ²) with the first r and all \
             singular values for PiSSA, and for LoRAM the logarithm by default, or the sketch."
                .into(),
        ],
        blocks: vec![Block::Plots { plots }],
        ..Section::default()
    })
}

fn method() -> Section {
    let paragraphs = [
        "Learning rates: of every arm, the rate with the best mean score over seeds on the selection part of the held-out data \
         is taken. The score is then that of the same runs on the test part, on which nothing was chosen. Rates at which fewer \
         seeds finished than at others are not considered.",
        "± is the standard deviation over seeds (divisor n − 1).",
        "Intervals: 2000 bootstrap replicates. A replicate draws, with replacement, as many test examples as there are, one \
         draw for all seeds, and as many seeds as there are, and takes the mean over these seeds of the metric over these \
         examples. For a difference, both arms get the same draws: the seeds and examples that both saw. The interval reaches \
         from the 2.5 % to the 97.5 % quantile. With one seed only examples are drawn, and the interval then says nothing \
         about other seeds; without figures of single examples only seeds are.",
        "The height of a loss curve is the area under it (trapezoids between the evaluations on the selection part) divided by \
         the steps: smaller means faster. Steps to lora's loss: the first step at which a run's curve is at the mean loss that \
         `lora` ends with, both at their best rates, on straight lines between evaluations.",
        "Forgetting is the loss on text of the base model's own domain after training minus that before. Start: seconds to \
         make the adapters' starts. Memory: the peak of the process. Disk: the saved adapter (the whole model in full \
         fine-tuning), and a checkpoint from which training can go on.",
    ];
    Section {
        anchor: "method".into(),
        title: "How the figures are made".into(),
        paragraphs: paragraphs.iter().map(|p| p.to_string()).collect(),
        ..Section::default()
    }
}

/// Keys that differ from their defaults, by whether all runs agree on them.
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
        Table::new("Keys that are not at their defaults, with every value that occurs.", &["key", "values"]);
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
            "`config.yaml` in each run folder has every key of that run; `loram train` on it makes it again.".into(),
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
