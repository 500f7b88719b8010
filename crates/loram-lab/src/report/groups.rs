//! The section of one model, task and rank.

use super::figure::{Figure, view};
use super::figures::{capital, words};
use super::page::{Block, Cell, Section, Table};
use super::scale::minus;
use crate::analyse::{ArmReport, BASELINES, Comparison, Group, Spread, Verdict};
use loram_io::error::human_bytes;
use loram_train::config::LearningRate;
use loram_train::shell::quoted;

pub(super) fn section(group: &Group, figures: &[&Figure]) -> Section {
    let metric = words(&group.score.name);
    let direction = if group.score.more_is_better { "more is better" } else { "less is better" };
    let seeds = group.seeds.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let (test, selection) = (group.test_examples, group.selection_examples);
    let records = |n: u64, kind: &str| match n {
        0 => format!("the {kind} records"),
        1 => format!("1 {kind} record"),
        n => format!("{} {kind} records", thousands(n)),
    };
    let data = match group.separate {
        true => format!("{}; learning rates chosen on {}", records(test, "test"), records(selection, "other")),
        false => format!("{}, on which learning rates were chosen, too", records(test, "evaluation")),
    };
    let plural = if group.seeds.len() == 1 { "Seed" } else { "Seeds" };
    let paragraph = format!("Score: {metric} ({direction}) on {data}. {plural} {seeds}.");
    let (heat, lines): (Vec<&&Figure>, Vec<&&Figure>) = figures.iter().partition(|f| f.name.contains("-magnitude-"));
    let mut blocks = vec![Block::Table(scores(group))];
    if !lines.is_empty() {
        blocks.push(Block::Plots { plots: lines.into_iter().map(|f| view(f)).collect() });
    }
    blocks.push(Block::Table(speed(group)));
    if group.fixed_rate.is_some() {
        blocks.push(details("Every arm at one learning rate", fixed(group)));
    }
    blocks.push(details("Every learning rate", rates(group)));
    if !heat.is_empty() {
        blocks.push(Block::Details {
            summary: "Size of each layer's update".into(),
            text: None,
            table: None,
            plots: heat.into_iter().map(|f| view(f)).collect(),
        });
    }
    blocks.push(Block::Details {
        summary: "How to reproduce these runs".into(),
        text: Some(reproduce(group)),
        table: None,
        plots: Vec::new(),
    });
    Section {
        anchor: group.slug(),
        title: capital(&group.title()),
        paragraphs: vec![paragraph],
        warnings: group.warnings.clone(),
        blocks,
    }
}

fn details(summary: &str, table: Table) -> Block {
    Block::Details { summary: summary.into(), text: None, table: Some(table), plots: Vec::new() }
}

/// The baselines in this group.
fn baselines(group: &Group) -> Vec<&'static str> {
    BASELINES.into_iter().filter(|b| group.arms.iter().any(|a| a.arm == *b)).collect()
}

fn scores(group: &Group) -> Table {
    let versus: Vec<String> = baselines(group).iter().map(|b| format!("minus {b}")).collect();
    let metric = words(&group.score.name);
    let mut columns = vec!["arm", "learning rate", &metric, "95 % interval"];
    columns.extend(versus.iter().map(String::as_str));
    let drawn = group
        .arms
        .iter()
        .find_map(|a| a.interval)
        .map_or(String::new(), |i| format!(" Intervals: bootstrap over {}.", i.resampled));
    let mut table = Table::new(format!("Every arm at its own best learning rate.{drawn}"), &columns);
    let decided = group.arms.len() > 1 && group.arms.iter().all(|a| a.open.is_none());
    for (i, a) in group.arms.iter().enumerate() {
        let interval = a.interval.map_or("–".into(), |v| format!("{} to {}", number(v.low), number(v.high)));
        let mut cells: Vec<Cell> = vec![a.arm.clone().into(), rate(a).into(), spread(a.score).into(), interval.into()];
        cells.extend(baselines(group).iter().map(|b| match *b == a.arm {
            true => "–".to_string().into(),
            false => difference(a.versus.get(*b)),
        }));
        table.push(cells, i == 0 && decided && a.score.is_some());
    }
    table
}

fn fixed(group: &Group) -> Table {
    let versus: Vec<String> = baselines(group).iter().map(|b| format!("minus {b}")).collect();
    let metric = words(&group.score.name);
    let mut columns = vec!["arm", &metric];
    columns.extend(versus.iter().map(String::as_str));
    let at = group.fixed_rate.map_or(String::new(), |rate| rate.to_string());
    let mut table = Table::new(
        format!("All arms at {at}, the best learning rate of lora; – if an arm was not run at it."),
        &columns,
    );
    for a in &group.arms {
        let mut cells: Vec<Cell> = vec![a.arm.clone().into(), spread(a.fixed).into()];
        cells.extend(baselines(group).iter().map(|b| match *b == a.arm {
            true => "–".to_string().into(),
            false => difference(a.versus_fixed.get(*b)),
        }));
        table.push(cells, false);
    }
    table
}

fn speed(group: &Group) -> Table {
    let forgetting = group.arms.iter().any(|a| a.forgetting.is_some());
    let steps = group.fixed_rate.is_some();
    let mut columns = vec!["arm", "curve height"];
    if steps {
        columns.push("steps to lora's loss");
    }
    if forgetting {
        columns.push("forgetting");
    }
    columns.extend(["init", "training", "memory", "trained", "disk", "checkpoint"]);
    let mut table = Table::new("Convergence and cost, means over the same runs.", &columns);
    for a in &group.arms {
        let c = &a.cost;
        let mut cells: Vec<Cell> = vec![a.arm.clone().into(), spread(a.curve_height).into()];
        if steps {
            cells.push(reached(a).into());
        }
        if forgetting {
            cells.push(spread(a.forgetting).into());
        }
        let bytes = |x: f64| if x > 0.0 { human_bytes(x as u64) } else { "–".into() };
        cells.push(seconds(c.start_seconds).into());
        cells.push(seconds(c.train_seconds).into());
        cells.push(bytes(c.peak_rss).into());
        cells.push(thousands(c.trainable_parameters as u64).into());
        cells.push(bytes(c.result_bytes).into());
        cells.push(bytes(c.checkpoint_bytes).into());
        table.push(cells, false);
    }
    table
}

/// Steps to the final loss of `lora`, and how many runs reach it if not all do.
fn reached(a: &ArmReport) -> String {
    match a.steps_to_lora {
        None => "not reached".into(),
        Some(s) if s.n < a.seeds.len() => format!("{:.0} ({} of {})", s.mean, s.n, a.seeds.len()),
        Some(s) => format!("{:.0}", s.mean),
    }
}

fn rates(group: &Group) -> Table {
    let shorts = group.arms.iter().flat_map(|a| &a.rates).any(|p| p.short.is_some());
    let metric = words(&group.score.name);
    let parts = if group.separate { vec!["selection", "test"] } else { vec![metric.as_str()] };
    let mut columns = [vec!["arm", "learning rate"], parts, vec!["seeds", "diverged"]].concat();
    if shorts {
        columns.push("short run, test");
    }
    let data = if group.separate { "on both parts" } else { "on the evaluation data" };
    let caption = format!("{} {data}; the best learning rate of each arm is highlighted.", capital(&metric));
    let mut table = Table::new(caption, &columns);
    for a in &group.arms {
        for p in &a.rates {
            let seeds = match (p.halved, a.has_short_runs_only()) {
                (true, true) => "a short run".to_string(),
                (true, false) => "dropped by halving".to_string(),
                (false, _) => p.selection.map_or(0, |s| s.n).to_string(),
            };
            let diverged = if p.diverged > 0 { p.diverged.to_string() } else { "–".into() };
            let mut cells = vec![a.arm.clone(), rate_text(p.learning_rate, p.number)];
            cells.extend(group.separate.then(|| spread(p.selection)));
            cells.extend([spread(p.test), seeds, diverged]);
            if shorts {
                cells.push(p.short.map_or("–".into(), number));
            }
            table.push(cells.into_iter().map(Cell::from).collect(), Some(p.learning_rate) == a.best_rate);
        }
    }
    table
}

/// Commands that reproduce the runs of the table.
fn reproduce(group: &Group) -> String {
    let mut out = String::new();
    for a in &group.arms {
        // names of others must not become commands of their own
        out += &format!("# {}\n", a.arm.replace(['\n', '\r'], " "));
        for dir in a.runs.iter().map(|d| d.replace(['\n', '\r'], " ")) {
            let (config, again) = (format!("{dir}/config.yaml"), format!("output_dir={dir}-again"));
            out += &format!("loram train {} --set {}\n", quoted(&config), quoted(&again));
        }
    }
    out
}

fn rate(a: &ArmReport) -> String {
    let edge = if a.edge.is_some() { " (edge)" } else { "" };
    a.best_rate.map_or("–".into(), |r| rate_text(r, a.best_number()) + edge)
}

/// A learning rate as the grid has it, and the number that it was.
fn rate_text(rate: LearningRate, number: Option<f64>) -> String {
    match number.filter(|_| rate.value().is_none()) {
        Some(x) => format!("{rate} ({x:.2e})"),
        None => rate.to_string(),
    }
}

/// A number with about four significant digits.
fn number(x: f64) -> String {
    minus(match x.abs() {
        a if a >= 1000.0 => format!("{x:.0}"),
        a if a >= 100.0 => format!("{x:.1}"),
        a if a >= 10.0 => format!("{x:.2}"),
        _ => format!("{x:.4}"),
    })
}

fn spread(s: Option<Spread>) -> String {
    match s {
        None => "–".into(),
        Some(Spread { mean, std: Some(std), .. }) => format!("{} ± {}", number(mean), number(std)),
        Some(s) => number(s.mean),
    }
}

fn difference(c: Option<&Comparison>) -> Cell {
    let Some(c) = c else { return "–".to_string().into() };
    let d = c.difference;
    let sign = |x: f64| if x > 0.0 { "+" } else { "" };
    let text = format!("{}{} [{}, {}]", sign(d.estimate), number(d.estimate), number(d.low), number(d.high));
    let tone = match c.verdict {
        Verdict::Better => "good",
        Verdict::Level => "",
        Verdict::Worse => "bad",
        Verdict::Open => return "open".to_string().into(),
    };
    Cell { text, tone }
}

fn seconds(s: f64) -> String {
    match s {
        s if s >= 90.0 => format!("{:.1} min", s / 60.0),
        s if s >= 10.0 => format!("{s:.0} s"),
        s if s >= 0.1 => format!("{s:.1} s"),
        s if s > 0.0 => format!("{:.0} ms", (s * 1000.0).max(1.0)),
        _ => "–".into(),
    }
}

/// A number with its digits in groups of three.
fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let parts: Vec<&str> = digits.as_bytes().rchunks(3).rev().filter_map(|c| std::str::from_utf8(c).ok()).collect();
    parts.join("\u{202f}")
}
