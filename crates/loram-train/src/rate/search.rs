//! The line search on a model: a gradient on some training records, one step of the run's own optimiser at each rate, and the
//! loss on other records.

use super::ladder::{Ladder, Rung};
use super::sizes;
use crate::adapt::{Adaptation, Calibration, LoadAdapter, initialize, load};
use crate::base::{Base, resolve, stage};
use crate::batching::{eval_batches, passes, permutation};
use crate::config::{BaseMode, FinetuningType, OptimKind, TrainConfig};
use crate::groups::NewHead;
use crate::objective::{Task, batch_and_loss, batches_and_losses};
use crate::observer::{Observer, Stage};
use crate::optim::{Optimizer, clip, grad_norm};
use crate::{Error, Result};
use loram_core::{SchemeOptions, SchemeSpec, StepSize};
use loram_io::data::Example;
use loram_io::init::InitOptions;
use loram_nn::{BatchLoss, LoadOptions, Model};
use serde::{Deserialize, Serialize};
use std::time::Instant;

/// The best peak rate of a run over the rate of the best single step.
pub(super) const FACTOR: f64 = 1.4;
/// The same where a new head is trained, which shakes the gradients of the adapters for as long as it learns.
const FACTOR_WITH_HEAD: f64 = 0.5;
/// The rate of a run that compares answers over the one at which it would learn the better ones: that of published recipes (Zephyr's
/// 5e-6 after 2e-4, TRL's 1e-6 beside 2e-5).
pub(crate) const OF_LIKELIHOOD: f64 = 0.05;
/// The largest share of the weights' norm that a first step may move: far from its data a model gains by larger ones, once.
const LARGEST: f64 = 0.06;
/// Step size of the first rung: most runs' best lies within half a decade of it.
const FIRST: f64 = 2e-3;
/// Records of the gradient and of the losses, in batches of the run, and at most.
const LEARN: (usize, usize) = (4, 64);
const JUDGE: (usize, usize) = (2, 32);
/// Fewest records of either where the data have them.
const FEWEST: usize = 16;
/// Steps of a new head alone, before the search: a gradient through a head at random tells nothing of the adapters.
const HEAD_STEPS: usize = 16;

/// A line search and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateSearch {
    /// The adapters that took the steps: `loram`, those that the run trains further, or none (`full`).
    pub scheme: String,
    /// Losses by learning rate.
    #[serde(flatten)]
    pub ladder: Ladder,
    /// D(η) of these adapters at each rung: the share of the weights' norm that a step moves.
    pub step_sizes: Vec<f64>,
    /// Learning rate of the best step; `None` where no step lowers the loss.
    pub optimum: Option<f64>,
    /// Peak learning rate for a run of these adapters.
    pub learning_rate: f64,
    /// D(η) at that rate, which runs of other schemes are given, too.
    pub step_size: f64,
    /// Records of the gradient.
    pub gradient_records: usize,
    /// Records of the losses.
    pub loss_records: usize,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Everything that a search depends on.
pub(crate) struct Job<'a> {
    pub config: &'a TrainConfig,
    pub base: &'a Base,
    pub task: Task<'a>,
    pub examples: &'a [Example],
    /// Factor on the rate that is found.
    pub share: f64,
    pub options: &'a LoadOptions,
    /// Tokens of a forward pass at most.
    pub max_tokens: Option<usize>,
}

/// Training records of a search.
struct Records {
    /// For the gradient.
    learn: Vec<Example>,
    /// For the losses, apart from those.
    judge: Vec<Example>,
    /// For the steps of a new head, all but those that are judged by.
    head: Vec<Example>,
}

/// A model with trainable adapters, or weights, for the search alone.
struct Trial<'a> {
    job: &'a Job<'a>,
    model: Model,
    head: Option<NewHead>,
    /// Parameters before the step.
    start: Vec<Vec<f32>>,
    judge: Vec<Example>,
}

impl Job<'_> {
    /// Searches. `observer` gets the progress in rungs.
    ///
    /// # Errors
    /// Those of a run's preparation and steps.
    pub fn search(&self, observer: &mut dyn Observer) -> Result<RateSearch> {
        let clock = Instant::now();
        stage(observer, Stage::LearningRate, 0, 1, "gradient");
        let mut model = self.base.model(&LoadOptions { dropout: false, ..*self.options })?;
        let head = self.base.new_head(self.config, &model)?;
        let Records { learn, judge, head: of_head } = self.records(head.is_some());
        if let Some(head) = &head {
            self.teach(&mut model, head, &of_head)?;
        }
        let (scheme, sizes) = self.attach(&mut model, observer)?;
        let gradient_records = learn.len();
        self.gradient(&mut model, &learn)?;
        let start = model.params().iter().map(|p| Ok(p.value.values()?)).collect::<Result<_>>()?;
        let mut trial = Trial { job: self, model, head, start, judge };
        let before = trial.loss_after(0.0)?;
        if !before.is_finite() {
            let what =
                "learning_rate: auto: the loss is not finite before the first step: check the model and its dtype";
            return Err(Error::Config(what.into()));
        }
        let first = self.first(&trial, &sizes)?;
        let mut done = 0;
        let ladder = Ladder::climb(first, before, |rate| {
            done += 1;
            stage(observer, Stage::LearningRate, done, done + 1, &format!("{rate:.2e}"));
            trial.loss_after(rate)
        })?;
        stage(observer, Stage::LearningRate, done, done, "");
        let optimum = ladder.optimum();
        let factor = if trial.head.is_some() { FACTOR_WITH_HEAD } else { FACTOR };
        let best = optimum.map_or(first, |x| factor * x);
        let learning_rate = self.share * self.choose(best, &ladder, &sizes);
        let step_sizes = ladder.rungs.iter().map(|r: &Rung| sizes.at(r.learning_rate)).collect();
        Ok(RateSearch {
            scheme,
            ladder,
            step_sizes,
            optimum,
            learning_rate,
            step_size: sizes.at(learning_rate),
            gradient_records,
            loss_records: trial.judge.len(),
            seconds: clock.elapsed().as_secs_f64(),
        })
    }

    /// The peak rate for a run, within its bounds. Momentum adds up 1/(1 − μ) steps of SGD, of which the search sees one.
    fn choose(&self, best: f64, ladder: &Ladder, sizes: &StepSize) -> f64 {
        let rate = ladder.highest_safe().map_or(best, |highest| best.min(highest));
        match self.config.optim {
            OptimKind::AdamW => sizes.rate(LARGEST).map_or(rate, |largest| rate.min(largest)),
            OptimKind::Sgd => rate * (1.0 - self.config.momentum),
        }
    }

    /// Makes trainable what the run trains: its adapters with LoRAM's initial factors, whatever its scheme, so that A and B
    /// both move in the first step; adapters that it trains further; or all weights.
    fn attach(&self, model: &mut Model, observer: &mut dyn Observer) -> Result<(String, StepSize)> {
        let (c, base) = (self.config, self.base);
        if c.finetuning_type == FinetuningType::Full {
            model.full_finetune()?;
            return Ok(("full".into(), sizes::of_weights(model)?));
        }
        let of = |adapters: &Adaptation, model: &Model| sizes::of_adapters(c, base, model, adapters);
        if let Some(given) = &c.adapter_name_or_path {
            let dir = resolve(given, None, observer)?;
            let how = LoadAdapter { train: true, dropout: 0.0, base: BaseMode::Branch };
            let (adapters, _) = load(model, &base.checkpoint, &base.config, &dir, how)?;
            return Ok((given.clone(), of(&adapters, model)?));
        }
        let mut lora = base.lora_config(c, model)?;
        lora.lora_dropout = 0.0;
        let scheme = SchemeSpec::parse("loram", &SchemeOptions::default())?;
        let options = InitOptions { lora, scheme, seed: c.seed };
        // the weights stay as they are
        let adapters = initialize(model, &options, BaseMode::Branch, Calibration::default(), &mut |_, _, _| {})?;
        Ok(("loram".into(), of(&adapters, model)?))
    }

    /// Trains a new head alone, at its own rate; it then stays as it is.
    fn teach(&self, model: &mut Model, head: &NewHead, records: &[Example]) -> Result<()> {
        for module in &head.modules {
            model.add_module_to_save(module)?;
        }
        let mut optimizer = Optimizer::with_head(&self.config.at(0.0), Some(head), model.params().iter())?;
        for batch in records.chunks(self.config.per_device_train_batch_size) {
            self.gradient(model, batch)?;
            optimizer.step(model.params_mut().iter_mut(), 1.0)?;
        }
        Ok(model.params_mut().zero_grads()?)
    }

    /// Training records, chosen by the seed.
    fn records(&self, with_head: bool) -> Records {
        let c = self.config;
        let step = c.per_device_train_batch_size.saturating_mul(c.gradient_accumulation_steps);
        let wanted = |(steps, most): (usize, usize)| step.saturating_mul(steps).clamp(FEWEST, most);
        let all = self.examples.len();
        let judge = wanted(JUDGE).min(all / 3);
        let learn = wanted(LEARN).min(all - judge);
        // not those of the first epoch's first batches
        let order = permutation(all, c.data_seed.unwrap_or(c.seed), usize::MAX);
        let take = |indices: &[usize]| indices.iter().map(|&i| self.examples[i].clone()).collect::<Vec<_>>();
        let (learn, rest) = order.split_at(learn);
        // one or two records: nothing else is there to judge by
        let judged = if judge == 0 { learn } else { &rest[..judge] };
        let others = [learn, &rest[judge..]].concat();
        let steps = HEAD_STEPS.saturating_mul(c.per_device_train_batch_size);
        let head: Vec<usize> = others.into_iter().cycle().take(if with_head { steps } else { 0 }).collect();
        Records { learn: take(learn), judge: take(judged), head: take(&head) }
    }

    /// Computes the gradient of the records' mean loss, and clips it as the run would.
    fn gradient(&self, model: &mut Model, learn: &[Example]) -> Result<()> {
        model.params_mut().zero_grads()?;
        let units: usize = learn.iter().map(Example::units).sum();
        let all: Vec<usize> = (0..learn.len()).collect();
        for batch in all.chunks(self.config.per_device_train_batch_size) {
            let passes = passes(batch, |i| learn[i].tokens(), self.max_tokens);
            let examples = passes.into_iter().map(|pass| pass.iter().map(|&i| &learn[i]).collect());
            for (batch, mut loss) in batches_and_losses(self.task, model, examples)? {
                model.forward_backward(&batch, &mut *loss, 1.0 / units.max(1) as f64, 0)?;
            }
        }
        let norm = grad_norm(model.params().iter())?;
        clip(model.params_mut().iter_mut(), norm, self.config.max_grad_norm)
    }

    /// The first rung: the rate of a usual step size. Under SGD the size of a step is measured.
    fn first(&self, trial: &Trial<'_>, sizes: &StepSize) -> Result<f64> {
        match self.config.optim {
            OptimKind::AdamW => Ok(sizes.rate(FIRST).unwrap_or(1e-4)),
            OptimKind::Sgd => {
                let norm = |of: fn(&loram_nn::Param) -> &loram_nn::Tensor| -> Result<f64> {
                    let params: Vec<_> = trial.model.params().iter().map(of).collect();
                    Ok(loram_nn::optim::sum_squares(&params)?.into_iter().sum::<f64>().sqrt())
                };
                let (value, grad) = (norm(|p| &p.value)?, norm(|p| &p.grad)?);
                let rate = FIRST * value / grad;
                Ok(if rate.is_finite() && rate > 0.0 { rate } else { 1e-4 })
            }
        }
    }
}

impl Trial<'_> {
    /// The loss on the judging records after one step at this rate; the parameters are then as before. A new head, which has
    /// had steps of its own, takes no part.
    fn loss_after(&mut self, learning_rate: f64) -> Result<f64> {
        let mut config = self.job.config.at(learning_rate);
        if self.head.is_some() {
            config.head_learning_rate = Some(0.0);
        }
        let mut optimizer = Optimizer::with_head(&config, self.head.as_ref(), self.model.params().iter())?;
        optimizer.step(self.model.params_mut().iter_mut(), 1.0)?;
        let loss = self.loss();
        for (param, values) in self.model.params_mut().iter_mut().zip(&self.start) {
            param.value.set_values(values)?;
        }
        loss
    }

    fn loss(&mut self) -> Result<f64> {
        let lengths: Vec<usize> = self.judge.iter().map(Example::tokens).collect();
        let batch_size = self.job.config.per_device_eval_batch_size;
        let limit = self.job.max_tokens.unwrap_or(usize::MAX);
        let mut sum = BatchLoss::default();
        for range in eval_batches(&lengths, batch_size, limit) {
            let (batch, mut loss) = batch_and_loss(self.job.task, &mut self.model, &self.judge[range])?;
            sum.add(self.model.evaluate(&batch, &mut *loss)?.loss);
        }
        Ok(sum.loss_sum / sum.counted.max(1) as f64)
    }
}
