//! The training loop.

use super::prompts::{Prompt, prompts, show};
use super::setup::{Setup, check_same_base};
use super::stop::StopFlag;
use crate::base::stage;
use crate::batching::passes;
use crate::checkpoint::{self, Trained, checkpoint_dir};
use crate::config::{DistDtype, Strategy};
use crate::dataset::Dataset;
use crate::device::Arithmetic;
use crate::dist::{ProcessGroup, Wire, deal, replicas};
use crate::evaluate::{EvalOptions, evaluate_in};
use crate::magnitude::{MagnitudeMeter, Magnitudes};
use crate::objective::batches_and_losses;
use crate::observer::{Event, LogRecord, Observer, RunPlan, Sample, Stage, StepInfo};
use crate::optim::{check_finite, clip, grad_norm};
use crate::report::{Reporter, write_environment};
use crate::run_folder;
use crate::schedule::Schedule;
use crate::summary::{SUMMARY, Status};
use crate::{Error, Metrics, Result, system};
use loram_io::{atomic, disk};
use loram_nn::{Batch, BatchLoss, HeadKind, Loss, Param};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Instant;

/// Steps over which the speed is measured.
const SPEED_STEPS: usize = 16;

pub(super) struct Run<'c, 'r, 'o> {
    pub s: Setup<'c>,
    stop: &'r StopFlag,
    /// True when a rank was asked to stop, by the last step.
    asked: bool,
    pub group: &'r ProcessGroup,
    /// The gradients of this step in one buffer, for sums over ranks.
    flat: Vec<f32>,
    pub reporter: &'r mut Reporter<'o>,
    schedule: Schedule,
    /// Batches of the current epoch.
    batches: Vec<Vec<usize>>,
    pub prompts: Vec<Prompt>,
    pub samples: Vec<Sample>,
    started: Instant,
    /// Seconds and tokens of the last steps.
    speed: VecDeque<(f64, u64)>,
    /// Seconds and tokens at the last line of metrics.
    logged: (f64, u64),
    pub first_step: usize,
    /// Seconds before the run was resumed.
    pub earlier: f64,
    pub tokens_before: u64,
    last_checkpoint: Option<PathBuf>,
    /// `None` when magnitudes are not asked for.
    gauge: Option<MagnitudeMeter>,
    /// The checksum of the base, computed while the run trains until its first checkpoint.
    base_sum: Option<JoinHandle<Result<String>>>,
    /// The loss of a uniform guess, where that means something.
    guess: Option<f64>,
}

/// Results of a step.
struct Step {
    loss: BatchLoss,
    /// Learning rate, and the share of its peak that it is.
    rate: f64,
    share: f64,
    norm: f64,
    tokens: u64,
    magnitude: Option<Magnitudes>,
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
    fn resumable(&self) -> String {
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

    /// Forward and backward over the batches of a step, clipping and the optimiser.
    fn optimizer_step(&mut self) -> Result<Step> {
        let c = self.s.config;
        let from = self.s.state.batch_in_epoch;
        let to = (from + self.s.data.batches_per_step).min(self.batches.len());
        let train = &self.s.data.train;
        let model = &mut self.s.model;
        self.group.at_step(self.s.state.global_step + 1);
        let length = |i: usize| train.examples[i].tokens();
        // whole batches, since a loss may compare the examples of one; its passes know their place in the step
        let batches: Vec<Vec<&[usize]>> =
            self.batches[from..to].iter().map(|b| passes(b, length, self.s.max_tokens)).collect();
        let tokens = |batch: &[usize]| batch.iter().map(|&i| length(i)).sum::<usize>();
        let sizes: Vec<usize> = self.batches[from..to].iter().map(|b| tokens(b)).collect();
        let ranks = deal(&sizes, self.group.world());
        let mut mine: Vec<(u64, Batch, Box<dyn Loss>)> = Vec::new();
        let mut place = 0;
        for (batch, rank) in batches.iter().zip(ranks) {
            if rank == self.group.rank() {
                let examples = batch.iter().map(|pass| pass.iter().map(|&i| &train.examples[i]).collect());
                let made = batches_and_losses(train.task(), model, examples)?;
                mine.extend((place..).zip(made).map(|(i, (b, targets))| (i, b, targets)));
            }
            place += batch.len() as u64;
        }
        let counted = match self.group.is_solo() {
            true => mine.iter().map(|(_, _, targets)| targets.counted()).sum(),
            // known without communication: all ranks have all examples
            false => units(&self.batches[from..to], train),
        };
        model.params_mut().zero_grads()?;
        let mut loss = BatchLoss::default();
        for (i, b, targets) in &mut mine {
            // of the pass's place in the run, so that no mask depends on the number of ranks
            let seed = step_seed(c.seed, self.s.state.batches + *i);
            loss.add(model.forward_backward(b, &mut **targets, 1.0 / counted as f64, seed)?);
        }
        self.s.state.batches += place;
        let loss = self.sum_over_ranks(loss)?;
        if loss.counted != counted {
            let what = format!("the loss counts {} units, the examples of the step have {counted}", loss.counted);
            return Err(Error::Data(what));
        }
        let model = &mut self.s.model;
        let norm = grad_norm(model.params().iter())?;
        let share = self.schedule.share(self.s.state.global_step);
        let rate = share * self.s.learning_rate();
        let last = match loss.loss_sum.is_finite() && norm.is_finite() {
            true => String::new(),
            false => self.last_good(),
        };
        let model = &mut self.s.model;
        let list: Vec<&Param> = model.params().iter().collect();
        let step = self.s.state.global_step + 1;
        check_finite(&list, loss.loss_sum, norm, step, rate, &last)?;
        let last_step = step == self.s.data.total_steps;
        let mut gauge = self.gauge.as_mut().filter(|_| last_step || step.is_multiple_of(c.magnitude_steps));
        if let Some(gauge) = &mut gauge {
            gauge.before_step(model)?;
        }
        clip(model.params_mut().iter_mut(), norm, c.max_grad_norm)?;
        self.s.optimizer.step(model.params_mut().iter_mut(), share)?;
        let magnitude = gauge.map(|gauge| gauge.after_step(model)).transpose()?;
        self.s.state.batch_in_epoch = to;
        let tokens = sizes.iter().sum::<usize>() as u64;
        Ok(Step { loss, rate, share, norm, tokens, magnitude })
    }

    /// Sums the gradients of all ranks, and what goes with them: the loss, and whether a rank was asked to stop. Every so many
    /// steps the parameters of all ranks are compared.
    fn sum_over_ranks(&mut self, loss: BatchLoss) -> Result<BatchLoss> {
        if self.group.is_solo() {
            return Ok(loss);
        }
        let done = self.s.state.global_step;
        let parameters = match done.is_multiple_of(replicas::CHECK_STEPS) || done + 1 == self.s.data.total_steps {
            true => {
                replicas::values(&self.s.model, &mut self.flat)?;
                replicas::checksum(&self.flat)
            }
            false => 0,
        };
        replicas::gradients(&self.s.model, &mut self.flat)?;
        let BatchLoss { loss_sum, counted, correct } = loss;
        let stop = u64::from(self.stop.is_set());
        let words = [loss_sum.to_bits(), counted as u64, correct as u64, stop, parameters, 0];
        let wire = match self.s.config.dist_dtype {
            DistDtype::Float32 => Wire::F32,
            DistDtype::Bfloat16 => Wire::Bf16,
        };
        let all = self.group.sum(&mut self.flat, wire, words)?;
        if let Some(rank) = all.iter().position(|w| w[4] != all[0][4]) {
            let what =
                format!("after step {done} the parameters of {} differ from those of rank 0", self.group.name(rank));
            return Err(self.group.common(format!(
                "{what}: its processor, its GPU or its memory computes otherwise. {}",
                self.resumable()
            )));
        }
        replicas::set_gradients(&mut self.s.model, &self.flat)?;
        let mut sum = BatchLoss::default();
        for w in &all {
            let (counted, correct) = (w[1] as usize, w[2] as usize);
            sum.add(BatchLoss { loss_sum: f64::from_bits(w[0]), counted, correct });
        }
        self.asked = all.iter().any(|w| w[3] != 0);
        Ok(sum)
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

    /// Where a run that fails can be taken up again.
    fn last_good(&self) -> String {
        let good = self.s.state.health.last_good.map(|step| checkpoint_dir(&self.s.config.output_dir, step));
        match (good.filter(|dir| dir.exists()), &self.last_checkpoint) {
            (Some(good), _) => format!("the last good checkpoint is {}", good.display()),
            (None, Some(newest)) => format!("no checkpoint is from before that (the newest is {})", newest.display()),
            (None, None) => "no checkpoint was saved yet".into(),
        }
    }

    /// Updates the count of training seconds.
    fn seconds(&mut self) {
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

    /// Saves a checkpoint and removes those beyond `save_total_limit`; rank 0 writes it.
    fn save(&mut self) -> Result<()> {
        self.seconds();
        if let Some(sum) = self.base_sum.take() {
            let failed = |_| loram_io::Error::Usage("the checksum of the base model could not be computed".into());
            let sum = sum.join().map_err(failed)??;
            check_same_base(&sum, self.group)?;
            self.s.state.inputs.base = Some(sum);
        }
        let state = &mut self.s.state;
        if state.health.is_good() {
            state.health.last_good = Some(state.global_step);
        }
        let saved = match self.group.is_first() {
            true => self.write_checkpoint(),
            false => Ok(checkpoint_dir(&self.s.config.output_dir, self.s.state.global_step)),
        };
        self.last_checkpoint = Some(self.group.agree(saved)?);
        Ok(())
    }

    fn write_checkpoint(&mut self) -> Result<PathBuf> {
        self.reporter.sync()?;
        let s = &self.s;
        let trained = Trained { model: &s.model, adaptation: s.adaptation.as_ref(), info: &s.info };
        let path = checkpoint::save(&s.config.output_dir, &trained, &s.optimizer, &s.state)?;
        self.reporter.event(&Event::Saved { step: s.state.global_step, path: path.clone() });
        self.prune()?;
        Ok(path)
    }

    /// Removes checkpoints beyond `save_total_limit`, but not the newest, the best and the last good one.
    pub fn prune(&self) -> Result<()> {
        let s = &self.s;
        let best = s.state.best_step.filter(|_| s.config.tracks_best());
        let keep = [best, s.state.health.last_good, Some(s.state.global_step)];
        match s.config.save_total_limit {
            Some(limit) => checkpoint::prune(&s.config.output_dir, limit, &keep),
            None => Ok(()),
        }
    }

    pub fn last_checkpoint(&self) -> Option<PathBuf> {
        self.last_checkpoint.clone()
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

/// Units that the loss of a step is a mean over.
fn units(batches: &[Vec<usize>], train: &Dataset) -> usize {
    batches.iter().flatten().map(|&i| train.examples[i].units()).sum()
}

/// Seed of the dropout of batch number `batch` of a run: SplitMix64 of both numbers.
fn step_seed(seed: u64, batch: u64) -> u64 {
    let mut z = seed.wrapping_add((batch + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
