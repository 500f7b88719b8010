//! The number of runs of a grid and their time: from scored runs, else from trials of a few steps.

use crate::board::{Board, State};
use crate::grid::{Grid, RunSpec};
use crate::{Error, Result};
use loram_io::data::raw_records;
use loram_train::config::Strategy;
use loram_train::{Trial, trial};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// A row of the plan.
#[derive(Debug, Clone, Serialize)]
pub struct PlanRow {
    /// Model.
    pub model: String,
    /// Task.
    pub task: String,
    /// Rank, or `full`.
    pub rank: String,
    /// Runs.
    pub runs: usize,
    /// Runs that are scored.
    pub done: usize,
    /// Runs that are left; with halving, full runs of learning rates that are not dropped.
    pub left: usize,
    /// Steps of a full run.
    pub steps: usize,
    /// Seconds of one full run.
    pub seconds: f64,
    /// Seconds of all runs that are left, one after another.
    pub total_seconds: f64,
    /// True if the time is that of scored runs, false if it is from a trial.
    pub measured: bool,
}

/// The runs of a grid and their time.
#[derive(Debug, Clone, Serialize)]
pub struct GridPlan {
    /// One row for each model, task and rank.
    pub rows: Vec<PlanRow>,
    /// Number of parallel runs.
    pub jobs: usize,
    /// Threads of each run.
    pub threads: usize,
    /// Seconds until all runs are scored.
    pub seconds: f64,
}

/// A trial, and the records of both parts of the held-out data.
struct Timed {
    trial: Trial,
    selection: usize,
    test: usize,
}

/// Counts and times the runs of a grid. `say` gets a line before each trial.
pub fn plan_grid(grid: &Grid, jobs: usize, threads: usize, say: &mut dyn FnMut(String)) -> Result<GridPlan> {
    let board = Board::new(grid)?;
    let states = board.states();
    let mut groups: BTreeMap<(String, String, Option<u64>), Vec<usize>> = BTreeMap::new();
    for (i, s) in board.runs.iter().enumerate() {
        groups.entry((s.point.model.clone(), s.point.task.clone(), s.point.r)).or_default().push(i);
    }
    let mut rows = Vec::new();
    for ((model, task, r), members) in groups {
        let done: Vec<usize> = members.iter().copied().filter(|&i| states[i] == State::Scored).collect();
        let open: Vec<usize> =
            members.iter().copied().filter(|&i| matches!(states[i], State::Ready | State::Waiting)).collect();
        let full = members.iter().copied().find(|&i| board.runs[i].point.rung.is_none()).unwrap_or(members[0]);
        let spec = &board.runs[full];
        let full_done: Vec<f64> = done
            .iter()
            .filter(|&&i| board.runs[i].point.rung.is_none())
            .filter_map(|&i| board.brief(i).map(|b| b.seconds))
            .collect();
        let measured = !full_done.is_empty();
        let mut steps = spec.config.max_steps.unwrap_or(0);
        let seconds = match measured {
            true => crate::stats::mean(&full_done),
            false => {
                say(format!("timing a few steps: {model} on {task}, {}", rank(r)));
                let t = timed(spec, threads)?;
                steps = t.trial.steps;
                t.trial.start + steps as f64 * t.trial.step + passes(spec, &t) * t.trial.example
            }
        };
        // short runs take their share of the time; of waiting full runs, halving drops some
        let kept = grid.halving.map_or(1.0, |h| (h.factor as f64).powi(-(h.rounds as i32)));
        let share = |&i: &usize| match (board.runs[i].point.rung, states[i]) {
            (Some(_), _) => board.runs[i].config.max_steps.unwrap_or(steps) as f64 / steps.max(1) as f64,
            (None, State::Waiting) => kept,
            _ => 1.0,
        };
        rows.push(PlanRow {
            rank: rank(r),
            runs: members.len(),
            done: done.len(),
            left: open.len(),
            steps,
            seconds,
            total_seconds: open.iter().map(share).fold(0.0, |sum, x| sum + x) * seconds,
            measured,
            model,
            task,
        });
    }
    let seconds = rows.iter().map(|r| r.total_seconds).sum::<f64>() / jobs as f64;
    Ok(GridPlan { rows, jobs, threads, seconds })
}

fn rank(r: Option<u64>) -> String {
    r.map_or_else(|| "full".into(), |r| r.to_string())
}

/// The number of examples that all evaluations of a run process: those of the loss curve, both parts at the end, and the
/// test part once more example by example.
fn passes(spec: &RunSpec, t: &Timed) -> f64 {
    let c = &spec.config;
    let points = match c.evaluation() {
        Strategy::No => 1,
        Strategy::Steps => 1 + t.trial.steps.div_ceil(c.eval_every()),
        Strategy::Epoch => 1 + c.num_train_epochs.ceil() as usize,
    };
    let limit = c.max_eval_samples.unwrap_or(usize::MAX);
    let forgetting = spec.forgetting.as_ref().and_then(|f| f.samples).unwrap_or(0);
    (points * t.selection.min(limit)) as f64 + t.selection as f64 + 2.0 * t.test as f64 + forgetting as f64
}

/// Runs a few steps in a temporary folder.
fn timed(spec: &RunSpec, threads: usize) -> Result<Timed> {
    spec.split.prepare()?;
    let records = |path: &Path| raw_records(&path.display().to_string()).map(|r| r.len());
    let (selection, test) = (records(&spec.split.selection)?, records(&spec.split.test)?);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Failed(format!("cannot start threads: {e}")))?;
    let mut trial = pool.install(|| trial(&spec.config))?;
    trial.steps = spec.config.max_steps.unwrap_or(trial.steps);
    Ok(Timed { trial, selection, test })
}
