//! The number of runs of a grid and their time: from scored runs, else from trials of a few steps.

use crate::board::{Board, State};
use crate::grid::{Grid, RunSpec};
use crate::{Error, Result};
use loram_io::data::raw_records;
use loram_train::config::Strategy;
use loram_train::observer::{Event, Observe, Stage};
use loram_train::{TrainConfig, Trainer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Optimiser steps of a trial; the first one is not timed.
const TRIAL_STEPS: usize = 4;
/// Examples on which a trial measures the speed of evaluations.
const TRIAL_EXAMPLES: usize = 16;

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

/// Seconds of the parts of a run.
struct Trial {
    step: f64,
    example: f64,
    /// Seconds before the first step.
    start: f64,
    steps: usize,
    /// Records of both parts of the held-out data.
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
                say(format!("timing {} steps: {model} on {task}, {}", TRIAL_STEPS, rank(r)));
                let t = trial(spec, threads)?;
                steps = t.steps;
                t.start + steps as f64 * t.step + passes(spec, &t) * t.example
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
fn passes(spec: &RunSpec, t: &Trial) -> f64 {
    let c = &spec.config;
    let points = match c.evaluation() {
        Strategy::No => 1,
        Strategy::Steps => 1 + t.steps.div_ceil(c.eval_every()),
        Strategy::Epoch => 1 + c.num_train_epochs.ceil() as usize,
    };
    let limit = c.max_eval_samples.unwrap_or(usize::MAX);
    let forgetting = spec.forgetting.as_ref().and_then(|f| f.samples).unwrap_or(0);
    (points * t.selection.min(limit)) as f64 + t.selection as f64 + 2.0 * t.test as f64 + forgetting as f64
}

/// Runs a few steps in a temporary folder.
fn trial(spec: &RunSpec, threads: usize) -> Result<Trial> {
    spec.split.prepare()?;
    let records = |path: &Path| raw_records(&path.display().to_string()).map(|r| r.len());
    let (selection, test) = (records(&spec.split.selection)?, records(&spec.split.test)?);
    let room = std::env::temp_dir().join(format!("loram-trial-{}", std::process::id()));
    let config = short(spec, &room);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let pool = pool.map_err(|e| Error::Failed(format!("cannot start threads: {e}")))?;
    let result = pool.install(|| measure(config));
    let _ = std::fs::remove_dir_all(&room);
    let mut trial = Trial { selection, test, ..result? };
    if let Some(n) = spec.config.max_steps {
        trial.steps = n;
    }
    Ok(trial)
}

fn short(spec: &RunSpec, room: &Path) -> TrainConfig {
    let mut c = spec.config.clone();
    c.output_dir = room.to_path_buf();
    c.max_steps = Some(TRIAL_STEPS);
    c.max_eval_samples = Some(TRIAL_EXAMPLES);
    c.eval_on_start = true;
    c.eval_strategy = Some(Strategy::No);
    c.eval_steps = None;
    c.save_strategy = Some(Strategy::No);
    (c.load_best_model_at_end, c.early_stopping_patience, c.metric_for_best_model) = (false, None, None);
    c.warmup_ratio = 1.0;
    c.overwrite_output_dir = true;
    c
}

fn measure(config: TrainConfig) -> Result<Trial> {
    let begun = Instant::now();
    let mut t = Trial { step: 0.0, example: 0.0, start: 0.0, steps: 0, selection: 0, test: 0 };
    let (mut first, mut evaluation) = (None, None);
    let epochs = config.num_train_epochs;
    Trainer::new(config)?.run(&mut Observe(|event: &Event| match event {
        Event::Stage { stage: Stage::Evaluate, done: 0, .. } => evaluation = Some(Instant::now()),
        Event::Evaluated { metrics, .. } => {
            if let Some(began) = evaluation.take() {
                t.example = began.elapsed().as_secs_f64() / metrics.examples.max(1) as f64;
            }
        }
        Event::Plan(p) => {
            t.start = begun.elapsed().as_secs_f64();
            t.steps = (epochs * p.steps_per_epoch as f64).ceil() as usize;
        }
        Event::Step(s) => match first {
            None => first = Some(s.elapsed),
            Some(f) => t.step = (s.elapsed - f) / (s.step - 1) as f64,
        },
        _ => {}
    }))?;
    Ok(t)
}
