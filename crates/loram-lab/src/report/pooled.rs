//! The section of arms against baselines over all tasks.

use super::figure::{Figure, Place, view};
use super::page::{Block, Cell, PlotView, Section, Table};
use super::plot::{Forest, Plot};
use super::scale::minus;
use crate::analyse::{Analysis, BASELINES, Decision, PooledComparison, SCORE_MARGIN, STEPS_MARGIN};
use crate::names::file_name;
use crate::stats::Pooled;

const AXIS: &str = "advantage, % of the loss or points";

/// Plots of all arms against a baseline, and of each comparison by task.
pub(super) fn figures(analysis: &Analysis) -> Vec<Figure> {
    let mut out = Vec::new();
    for baseline in BASELINES {
        let own: Vec<&PooledComparison> = analysis.pooled.iter().filter(|p| p.baseline == baseline).collect();
        if own.is_empty() {
            continue;
        }
        out.push(Figure {
            place: Place::Pooled,
            name: format!("pooled-{baseline}"),
            caption: format!(
                "Score of each arm at its own best learning rate against {baseline}, over all tasks: the estimate, its 90 % interval \
                 (thick) and its 95 % interval (thin). To the right is better; within the grey band there is no difference in practice."
            ),
            plot: forest(format!("Against {baseline}"), own.iter().map(|p| (p.arm.clone(), p.score)).collect()),
        });
        out.extend(own.iter().map(|p| Figure {
            place: Place::ByTask,
            name: format!("pooled-{}-{baseline}", file_name(&p.arm)),
            caption: format!("Score of {} against {baseline}, task by task.", p.arm),
            plot: forest(
                format!("{} against {baseline}", p.arm),
                p.effects.iter().map(|e| (e.group.clone(), e.score)).chain([("all".into(), p.score)]).collect(),
            ),
        }));
    }
    out
}

fn forest(title: String, rows: Vec<(String, Pooled)>) -> Plot {
    Plot::Forest(Forest { title, x_label: AXIS.into(), rows, margin: SCORE_MARGIN })
}

/// `None` where there are fewer than two tasks.
pub(super) fn section(analysis: &Analysis, figures: &[Figure]) -> Option<Section> {
    if analysis.pooled.is_empty() {
        return None;
    }
    let mut table = Table::new(
        "Advantage of an arm over all tasks, each arm at its own best learning rate, with the 95 % interval. Score and height of the curve: \
         percent of lora's loss, or points; steps and seconds to lora's final loss: percent of lora's run. Positive is better.",
        &["arm", "against", "tasks", "score", "height of the curve", "steps", "seconds", "decision"],
    );
    for p in &analysis.pooled {
        let absent = || Cell::from("–".to_string());
        let cell = |p: &Option<Pooled>| p.as_ref().map_or_else(absent, interval);
        table.push(
            vec![
                p.arm.clone().into(),
                p.baseline.clone().into(),
                tasks(p).into(),
                interval(&p.score),
                cell(&p.area),
                cell(&p.steps),
                cell(&p.seconds),
                decision(p),
            ],
            false,
        );
    }
    for i in [1, 7] {
        table.columns[i].number = false;
    }
    let plots = |place: Place| -> Vec<PlotView> { figures.iter().filter(|f| f.place == place).map(view).collect() };
    let rules = format!(
        "A difference of {SCORE_MARGIN} % of the loss or {SCORE_MARGIN} point, or of {STEPS_MARGIN} % of the steps, is none in practice. \
         Refuted: the 95 % interval of the score or of the height lies wholly beyond that on the worse side. Exceeds: the 95 % interval of one \
         lies on the better side of 0, and the other one is not worse. Matches: the 90 % intervals of both lie within the margins. Undecided \
         otherwise; × tells how much more data would decide if the estimates stayed as they are."
    );
    let method = "Intervals: 10 000 bootstrap replicates, each of which draws tasks, in each task seeds, and in each test examples, with \
                  replacement and with one draw for both arms. A task at several ranks counts once.";
    Some(Section {
        anchor: "pooled".into(),
        title: "Over all tasks".into(),
        paragraphs: vec![rules, method.into()],
        warnings: Vec::new(),
        blocks: vec![
            Block::Table(table),
            Block::Plots { plots: plots(Place::Pooled) },
            Block::Details { summary: "Task by task".into(), text: None, table: None, plots: plots(Place::ByTask) },
        ],
    })
}

fn tasks(p: &PooledComparison) -> String {
    match p.left_out {
        0 => p.tasks.to_string(),
        n => format!("{} ({n} incomplete left out)", p.tasks),
    }
}

/// `+0.42 [−0.10, +0.93]`.
fn interval(p: &Pooled) -> Cell {
    // no −0
    let number = |x: f64| minus(format!("{:+.2}", if x.abs() < 0.005 { 0.0 } else { x }));
    Cell {
        text: format!("{} [{}, {}]", number(p.estimate), number(p.wide.0), number(p.wide.1)),
        tone: match (p.wide.0 > 0.0, p.wide.1 < 0.0) {
            (true, _) => "good",
            (_, true) => "bad",
            _ => "",
        },
    }
}

fn decision(p: &PooledComparison) -> Cell {
    let (text, tone) = match p.decision {
        Decision::Refuted => ("refuted".to_string(), "bad"),
        Decision::Exceeds => ("exceeds".to_string(), "good"),
        Decision::Matches => ("matches".to_string(), ""),
        Decision::Undecided => {
            (p.more_data.map_or("undecided".to_string(), |more| format!("undecided, ×{}", more.ceil().max(2.0))), "")
        }
    };
    Cell { text, tone }
}
