//! The speed of a run, measured on a few of its steps, and the time that it will take.

use crate::config::{SamplePrompts, SchemeName, Strategy, TrainConfig};
use crate::observer::{Event, Observe, Stage};
use crate::trainer::{Preview, Trainer};
use crate::{Result, device};
use loram_nn::kernels::gemm::{View, ViewMut, gemm};
use std::path::Path;
use std::time::Instant;

/// Optimiser steps of a trial; the first one is not timed.
const STEPS: usize = 4;
/// Learning rate of a trial where the run's own is not known yet; no time depends on it.
const TRIAL_RATE: f64 = 1e-5;
/// Optimiser steps that take as long as the search for a learning rate.
const SEARCH_STEPS: f64 = 10.0;
/// Examples on which a trial measures the speed of evaluations.
const EXAMPLES: usize = 16;

/// Seconds of the parts of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trial {
    /// One optimiser step.
    pub step: f64,
    /// The mean number of tokens of these steps.
    pub tokens: f64,
    /// Evaluation of one example; 0 without evaluation data.
    pub example: f64,
    /// Everything before the first step.
    pub start: f64,
    /// Optimiser steps of the whole run, which has no limit on them.
    pub steps: usize,
}

/// Runs a few steps of this configuration in a temporary folder, which is removed. Errors: those of the run.
pub fn trial(config: &TrainConfig) -> Result<Trial> {
    let room = std::env::temp_dir().join(format!("loram-trial-{}", std::process::id()));
    let measured = measure(short(config, &room));
    // a temporary folder that stays does no harm
    let _ = std::fs::remove_dir_all(&room);
    measured
}

fn measure(config: TrainConfig) -> Result<Trial> {
    let begun = Instant::now();
    let mut t = Trial::default();
    let (mut first, mut evaluation, mut tokens) = (None, None, 0);
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
            Some(f) => {
                tokens += s.tokens;
                t.step = (s.elapsed - f) / (s.step - 1) as f64;
                t.tokens = tokens as f64 / (s.step - 1) as f64;
            }
        },
        _ => {}
    }))?;
    Ok(t)
}

fn short(config: &TrainConfig, room: &Path) -> TrainConfig {
    let mut c = config.clone();
    c.output_dir = room.to_path_buf();
    c.max_steps = Some(STEPS);
    c.max_eval_samples = Some(EXAMPLES);
    c.eval_on_start = true;
    c.eval_strategy = Some(Strategy::No);
    c.eval_steps = None;
    c.save_strategy = Some(Strategy::No);
    c.save_steps = None;
    c.sample_prompts = SamplePrompts::First(0);
    (c.load_best_model_at_end, c.early_stopping_patience, c.metric_for_best_model) = (false, None, None);
    c.warmup_ratio = 1.0;
    if c.learning_rate.value().is_none() {
        // a search would take longer than these steps
        c.learning_rate = TRIAL_RATE.into();
    }
    c.overwrite_output_dir = true;
    c
}

/// Operations that a trial may take; on a CPU these are about ten seconds.
const CPU_WORK: f64 = 4e11;
const GPU_WORK: f64 = 4e14;

/// How the time of a run was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// A few of its steps were run.
    Steps,
    /// A product of matrices was timed, since its steps take long.
    Product,
}

/// The time that a run will take.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct ExpectedTime {
    /// Seconds from its start to its end.
    pub seconds: f64,
    /// How it was found.
    pub measured: Measured,
}

/// Estimates the time of a run from a few of its steps or, where these would take long, from the speed of a product of
/// matrices. `None` where neither works.
pub fn expected_time(config: &TrainConfig, preview: &Preview) -> Option<ExpectedTime> {
    let gpu = device::compute(config.device).ok()?.on_gpu();
    let tokens = preview.train.tokens as f64 / preview.steps_per_epoch.max(1) as f64;
    let evaluated = evaluations(config, preview) * preview.eval.as_ref().map_or(0.0, |e| e.examples as f64);
    // two operations a weight and token forward, and two backward, through frozen weights
    let work = 4.0 * preview.memory.base_parameters as f64 * tokens;
    let fits = preview.free_memory.is_none_or(|free| free > preview.memory.total);
    if fits && work * STEPS as f64 <= if gpu { GPU_WORK } else { CPU_WORK } {
        let t = trial(&cheap_to_begin(config)).ok()?;
        let step = t.step * tokens / t.tokens.max(1.0);
        let search = if config.learning_rate.times_auto().is_some() { SEARCH_STEPS * step } else { 0.0 };
        let seconds = t.start + search + preview.total_steps as f64 * step + evaluated * t.example;
        return Some(ExpectedTime { seconds, measured: Measured::Steps });
    }
    if gpu {
        return None;
    }
    let mean = preview.eval.as_ref().map_or(0.0, |e| e.tokens as f64 / e.examples.max(1) as f64);
    let forward = 2.0 * preview.memory.base_parameters as f64 * evaluated * mean;
    let seconds = (preview.total_steps as f64 * work + forward) / product_speed();
    Some(ExpectedTime { seconds, measured: Measured::Product })
}

/// The number of passes over the evaluation data.
fn evaluations(config: &TrainConfig, preview: &Preview) -> f64 {
    let first = if config.eval_on_start && preview.eval.is_some() { 1 } else { 0 };
    let (steps, epoch) = (preview.total_steps, preview.steps_per_epoch.max(1));
    let during = match config.evaluation() {
        Strategy::No => 0,
        Strategy::Steps => steps.div_ceil(config.eval_every()),
        Strategy::Epoch => steps.div_ceil(epoch),
    };
    (first + during) as f64
}

/// The same steps without an initialisation that decomposes weights or runs the model on data.
fn cheap_to_begin(config: &TrainConfig) -> TrainConfig {
    let mut c = config.clone();
    if c.adapter_name_or_path.is_none() && !(c.init_lora_weights.0 == "loram" && c.scheme_options.is_empty()) {
        c.init_lora_weights = SchemeName("lora".into());
        c.scheme_options.clear();
        c.calibration_data.clear();
    }
    c
}

/// Operations per second of a product of matrices of a usual size on all threads.
fn product_speed() -> f64 {
    const SIDE: usize = 768;
    let values = vec![0.5_f32; SIDE * SIDE];
    let mut out = vec![0.0_f32; SIDE * SIDE];
    let mut once = || {
        let begun = Instant::now();
        let (a, b) = (View::new(&values, SIDE, SIDE), View::new(&values, SIDE, SIDE));
        gemm(ViewMut::new(&mut out, SIDE, SIDE), false, 1.0, a, b);
        begun.elapsed().as_secs_f64()
    };
    // the first one starts the threads
    once();
    let fastest = (0..3).map(|_| once()).fold(f64::INFINITY, f64::min);
    2.0 * (SIDE * SIDE * SIDE) as f64 / fastest.max(1e-9)
}
