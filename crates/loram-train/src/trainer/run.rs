//! The training loop.

use super::prompts::{Prompt, prompts, show};
use super::setup::Setup;
use super::step::Step;
use super::stop::StopFlag;
use crate::base::stage;
use crate::config::Strategy;
use crate::device::Arithmetic;
use crate::dist::ProcessGroup;
use crate::evaluate::{EvalOptions, evaluate_in};
use crate::magnitude::MagnitudeMeter;
use crate::observer::{Event, LogRecord, Observer, RunPlan, Sample, Stage, StepInfo};
use crate::report::{Reporter, write_environment};
use crate::run_folder;
use crate::schedule::Schedule;
use crate::summary::{SUMMARY, Status};
use crate::{Error, Metrics, Result, system};
use loram_io::{atomic, disk};
use loram_nn::HeadKind;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

/// Steps over which the speed is measured.
const SPEED_STEPS: usize = 16;

pub(super) struct Run<'c, 'r, 'o> {
    pub s: Setup<'c>,
    pub stop: &'r StopFlag,
    /// True when a rank was asked to stop, by the last step.
    pub asked: bool,
    pub group: &'r ProcessGroup,
    /// The gradients of this step in one buffer, for sums over ranks.
    pub flat: Vec<f32>,
    pub reporter: &'r mut Reporter<'o>,
    pub schedule: Schedule,
    /// Batches of the current epoch.
    pub batches: Vec<Vec<usize>>,
    pub prompts: Vec<Prompt>,
    pub samples: Vec<Sample>,
    pub started: Instant,
    /// Seconds and tokens of the last steps.
    pub speed: VecDeque<(f64, u64)>,
    /// Seconds and tokens at the last line of metrics.
    pub logged: (f64, u64),
    pub first_step: usize,
    /// Seconds before the run was resumed.
    pub earlier: f64,
    pub tokens_before: u64,
    pub last_checkpoint: Option<PathBuf>,
    /// `None` when magnitudes are not asked for.
    pub gauge: Option<MagnitudeMeter>,
    /// The checksum of the base, computed while the run trains until its first checkpoint.
    pub base_sum: Option<JoinHandle<Result<String>>>,
    /// The loss of a uniform guess, where that means something.
    pub guess: Option<f64>,
}

impl<'c, 'r, 'o> Run<'c, 'r, 'o> {
    /// Opens the run folder, on rank 0.
    pub fn new(
        s: Setup<'c>,
        stop: &'r StopFlag,
        group: &'r ProcessGroup,
        reporter: &'r mut Reporter<'o>,
    ) -> Result<Run<'c, 'r, 'o>> {
        if group.is_first() {
            open_folder(&s, group, reporter)?;
        }
        let c = s.config;
        let prompts = prompts(c, &s.base, s.data.eval.as_ref().unwrap_or(&s.data.train))?;
        let gauge = match &s.adaptation {
            Some(a) if c.magnitude_steps > 0 && group.is_first() => {
                Some(MagnitudeMeter::new(a, &s.base.checkpoint, &s.base.config)?)
            }
            _ => None,
        };
        Ok(Run {
            schedule: Schedule::new(c, s.data.total_steps),
            batches: s.data.order.epoch(s.state.epoch),
            prompts,
            samples: s.state.samples.clone(),
            base_sum: None,
            guess: s.data.train.objective.guess(match s.model.options().head {
                HeadKind::LanguageModel => s.base.config.vocab_size(),
                head => head.outputs().unwrap_or(1),
            }),
            started: Instant::now(),
            speed: VecDeque::new(),
            logged: (0.0, s.state.tokens_seen),
            first_step: s.state.global_step,
            earlier: s.state.train_seconds,
            tokens_before: s.state.tokens_seen,
            last_checkpoint: s.resumed.clone(),
            gauge,
            s,
            stop,
            asked: false,
            group,
            flat: Vec::new(),
            reporter,
        })
    }

    /// Trains to the end, or until it is stopped. Returns how it ended.
    pub fn train(&mut self) -> Result<Status> {
        let trained = self.train_steps();
        trained.map_err(|e| match e {
            Error::RankLost { name, when, told, .. } => Error::RankLost { name, when, told, last: self.resumable() },
            other => other,
        })
    }

    /// How a run that lost a rank goes on.
    pub fn resumable(&self) -> String {
        match &self.last_checkpoint {
            Some(dir) => format!("{} is whole: start the same command with --resume", dir.display()),
            None => "No checkpoint was saved yet: start the same command again".into(),
        }
    }

    fn train_steps(&mut self) -> Result<Status> {
        self.announce();
        if self.s.state.inputs.base.is_none() {
            let sum = self.s.base.checksum();
            self.base_sum = Some(std::thread::spawn(move || sum(false)));
        }
        if self.s.resumed.is_none() {
            self.samples = self.sample("before")?;
            self.s.state.samples.clone_from(&self.samples);
        }
        if self.first_step == 0 && self.s.config.eval_on_start && self.s.data.eval.is_some() {
            let metrics = self.evaluate()?;
            self.s.state.first_metrics = Some(metrics);
        }
        self.started = Instant::now();
        // a run that was killed after it had stopped early must not train on
        let mut status = if self.is_patience_over() { Status::StoppedEarly } else { Status::Finished };
        while status == Status::Finished && self.s.state.global_step < self.s.data.total_steps {
            let epoch_ends = self.step()?;
            let last = self.s.state.global_step == self.s.data.total_steps;
            if self.due(self.s.config.evaluation(), self.s.config.eval_every(), epoch_ends, last) {
                self.evaluate()?;
                if self.is_patience_over() {
                    status = Status::StoppedEarly;
                }
            }
            let stopped = status == Status::StoppedEarly || (self.is_asked_to_stop() && !last);
            let save = self.due(self.s.config.saving(), self.s.config.save_every(), epoch_ends, last);
            if save || (stopped && status != Status::StoppedEarly) {
                self.save()?;
            }
            if stopped {
                if status != Status::StoppedEarly {
                    status = Status::Interrupted;
                }
                break;
            }
        }
        self.seconds();
        Ok(status)
    }

    /// True if evaluations have not improved for as long as the configuration allows.
    fn is_patience_over(&self) -> bool {
        self.s.config.early_stopping_patience.is_some_and(|p| self.s.state.patience >= p)
    }

    /// True when this process was asked to stop, or another rank by the last step: all ranks stop after the same one.
    fn is_asked_to_stop(&self) -> bool {
        if self.group.is_solo() { self.stop.is_set() } else { self.asked }
    }

    fn announce(&mut self) {
        let (s, data) = (&self.s, &self.s.data);
        let trainable = s.model.params().count() as u64;
        let adapters: u64 = match &s.adaptation {
            Some(a) => a.layers.values().map(|l| ((l.plan.n + l.plan.m) * l.plan.r) as u64).sum(),
            None => 0,
        };
        let plan = RunPlan {
            examples: data.train.report.examples,
            tokens: data.train.report.tokens as u64,
            eval_examples: data.eval.as_ref().map_or(0, |e| e.report.examples),
            truncated: data.train.report.truncated,
            total_steps: data.total_steps,
            start_step: s.state.global_step,
            steps_per_epoch: data.steps_per_epoch,
            trainable_parameters: trainable,
            parameters: s.memory.base_parameters + adapters,
            groups: s.optimizer.groups().to_vec(),
            adapted_layers: s.adaptation.as_ref().map_or(0, |a| a.layers.len()),
            scheme: self.scheme(),
            output_dir: s.config.output_dir.clone(),
        };
        self.reporter.event(&Event::Plan(plan));
    }

    /// Canonical name of the initialisation scheme.
    pub fn scheme(&self) -> String {
        match &self.s.adaptation {
            None => "full".into(),
            Some(a) => a.recipe.as_ref().map_or_else(|| "unknown".into(), |r| r.scheme.clone()),
        }
    }

    /// Generated texts, on rank 0.
    pub fn sample(&mut self, when: &'static str) -> Result<Vec<Sample>> {
        let s = &self.s;
        if !self.group.is_first() {
            return Ok(Vec::new());
        }
        show(s.config, &s.base, &s.model, &self.prompts, when, s.state.global_step, self.reporter)
    }

    fn due(&self, strategy: Strategy, every: usize, epoch_ends: bool, last: bool) -> bool {
        match strategy {
            Strategy::No => false,
            Strategy::Steps => last || self.s.state.global_step.is_multiple_of(every),
            Strategy::Epoch => last || epoch_ends,
        }
    }

    pub fn epoch(&self) -> f64 {
        self.s.state.epoch as f64 + self.s.state.batch_in_epoch as f64 / self.batches.len().max(1) as f64
    }

    /// Runs one optimiser step. Returns true when it ended an epoch.
    fn step(&mut self) -> Result<bool> {
        let begun = Instant::now();
        let found = self.optimizer_step()?;
        let mean = found.loss.loss_sum / found.loss.counted as f64;
        let state = &mut self.s.state;
        state.last_loss = mean;
        state.global_step += 1;
        state.tokens_seen += found.tokens;
        state.loss_of_steps += mean;
        state.window.loss += found.loss.loss_sum;
        state.window.counted += found.loss.counted as u64;
        state.window.correct += found.loss.correct as u64;
        self.seconds();
        self.speed.push_back((begun.elapsed().as_secs_f64(), found.tokens));
        if self.speed.len() > SPEED_STEPS {
            self.speed.pop_front();
        }
        // the end of an epoch counts as the whole of it until the next one begins
        let epoch = self.epoch();
        let epoch_ends = self.s.state.batch_in_epoch >= self.batches.len();
        self.check_health(&found, mean)?;
        self.tell_step(&found, mean, epoch);
        let step = self.s.state.global_step;
        if step.is_multiple_of(self.s.config.logging_steps) || step == self.s.data.total_steps {
            self.log(&found, epoch)?;
        }
        if found.magnitude.is_some() {
            self.record(LogRecord { step, epoch, magnitude: found.magnitude.clone(), ..LogRecord::default() })?;
        }
        if epoch_ends {
            self.s.state.epoch += 1;
            self.s.state.batch_in_epoch = 0;
            self.batches = self.s.data.order.epoch(self.s.state.epoch);
        }
        Ok(epoch_ends)
    }

    /// An error when no further step can save the run.
    fn check_health(&mut self, found: &Step, mean: f64) -> Result<()> {
        let state = &mut self.s.state;
        let before = state.first_metrics.as_ref().map(|m| m.loss);
        let total = self.s.data.total_steps;
        match state.health.observe(mean, found.norm, self.guess, before, total) {
            None => Ok(()),
            Some(what) => Err(Error::Lost { step: state.global_step, what, lr: found.rate, last: self.last_good() }),
        }
    }

    /// Updates the count of training seconds.
    pub fn seconds(&mut self) {
        self.s.state.train_seconds = self.earlier + self.started.elapsed().as_secs_f64();
    }

    fn tell_step(&mut self, found: &Step, mean: f64, epoch: f64) {
        let (seconds, tokens) = self.speed.iter().fold((0.0, 0), |a, s| (a.0 + s.0, a.1 + s.1));
        let step = self.s.state.global_step;
        let elapsed = self.started.elapsed().as_secs_f64();
        let total_steps = self.s.data.total_steps;
        let per_step = elapsed / (step - self.first_step) as f64;
        self.reporter.event(&Event::Step(StepInfo {
            step,
            total_steps,
            epoch,
            loss: mean,
            learning_rate: found.rate,
            grad_norm: found.norm,
            tokens: found.tokens,
            tokens_per_second: tokens as f64 / seconds.max(1e-9),
            elapsed,
            eta: per_step * (total_steps - step) as f64,
            rss: system::rss(),
        }));
    }

    /// Writes a line of training metrics.
    fn log(&mut self, found: &Step, epoch: f64) -> Result<()> {
        let elapsed = self.started.elapsed().as_secs_f64();
        let state = &mut self.s.state;
        let w = std::mem::take(&mut state.window);
        let (seconds, tokens) = (elapsed - self.logged.0, state.tokens_seen - self.logged.1);
        self.logged = (elapsed, state.tokens_seen);
        let groups = self.s.optimizer.groups();
        let learning_rates = match groups.iter().any(|g| g.learning_rate != groups[0].learning_rate) {
            true => groups.iter().map(|g| (g.name.to_string(), found.share * g.learning_rate)).collect(),
            false => BTreeMap::new(),
        };
        let metrics = self.s.data.train.objective.metrics();
        let correct = w.correct as f64 / w.counted.max(1) as f64;
        let correct = |metric: &str| metrics.iter().any(|m| m.name == metric).then_some(correct);
        let record = LogRecord {
            step: state.global_step,
            epoch,
            loss: Some(w.loss / w.counted.max(1) as f64),
            learning_rate: Some(found.rate),
            learning_rates,
            grad_norm: Some(found.norm),
            token_accuracy: correct("token_accuracy"),
            reward_accuracy: correct("rewards/accuracies"),
            tokens_seen: Some(state.tokens_seen),
            tokens_per_second: Some(tokens as f64 / seconds.max(1e-9)),
            rss: Some(system::rss()),
            seconds: Some(elapsed),
            ..LogRecord::default()
        };
        self.record(record)
    }

    /// Adds a line to the history, which checkpoints keep, and to `metrics.jsonl`.
    fn record(&mut self, record: LogRecord) -> Result<()> {
        self.reporter.record(&record)?;
        self.s.state.log_history.push(record);
        Ok(())
    }

    /// Evaluates and tracks the best evaluation.
    pub fn evaluate(&mut self) -> Result<Metrics> {
        let Some(set) = &self.s.data.eval else { return Err(Error::Config("there is no eval_data".into())) };
        let options = EvalOptions { batch_size: self.s.config.per_device_eval_batch_size, ..EvalOptions::default() };
        let task = set.task();
        let metrics = evaluate_in(self.group, &mut self.s.model, task, &set.examples, options, &mut |done, total| {
            stage(self.reporter, Stage::Evaluate, done as u64, total as u64, "");
        })?;
        let best = self.s.config.tracks_best() && self.s.state.global_step > 0 && self.compare(&metrics)?;
        let (step, epoch) = (self.s.state.global_step, self.epoch());
        let eval = metrics.values().into_iter().map(|(k, v)| (format!("eval_{k}"), v)).collect();
        let record = LogRecord { step, epoch, eval, ..LogRecord::default() };
        self.record(record)?;
        self.s.state.last_metrics = Some((step, metrics.clone()));
        self.reporter.event(&Event::Evaluated { step, epoch, metrics: metrics.clone(), best });
        Ok(metrics)
    }

    /// Returns true for the best evaluation so far; counts those without improvement, as transformers'
    /// `EarlyStoppingCallback` and `_determine_best_metric` do.
    fn compare(&mut self, metrics: &Metrics) -> Result<bool> {
        let c = self.s.config;
        let name = c.best_metric();
        let Some(value) = metrics.get(name) else {
            return Err(Error::Config(format!("metric_for_best_model: the evaluation gave no `{name}`")));
        };
        let state = &mut self.s.state;
        let better = |old: f64| if c.more_is_better() { value > old } else { value < old };
        let best = state.best_metric.is_none_or(better);
        let enough =
            state.best_metric.is_none_or(|old| better(old) && (value - old).abs() > c.early_stopping_threshold);
        state.patience = if enough { 0 } else { state.patience + 1 };
        if best {
            state.best_metric = Some(value);
            state.best_step = Some(state.global_step);
            state.best_metrics = Some(metrics.clone());
        }
        Ok(best)
    }
}

/// Prepares the folder of the run and its files.
fn open_folder(s: &Setup<'_>, group: &ProcessGroup, reporter: &mut Reporter<'_>) -> Result<()> {
    let c = s.config;
    let dir = &c.output_dir;
    match s.resumed {
        None => run_folder::clear(dir)?,
        // that of the process before: until this one ends, the run has not ended
        Some(_) => disk::remove_file(&dir.join(SUMMARY))?,
    }
    let resume_step = s.resumed.is_some().then_some(s.state.global_step);
    reporter.open(c, &s.state.log_history, resume_step)?;
    // a resumed run with the same settings keeps what is said of their origins
    if s.resumed.is_none() || !run_folder::holds_settings(dir, c) {
        atomic::write_bytes(dir.join(run_folder::CONFIG), c.to_yaml().as_bytes())?;
    }
    let data = [&c.train_data[..], &c.eval_data].concat();
    write_environment(dir, &s.base, Arithmetic::of(c)?, &data, s.state.rate.as_ref(), group)
}
