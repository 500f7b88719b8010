//! Preparation of a run: data, model, adapters, and the checkpoint to resume from.

use super::alike::{check_same_inputs, start_alike};
use super::data_warnings::data_warnings;
use super::passes::{Passes, Sizes};
use super::reference;
use super::search::{SearchSet, needs_search, tell_about_rate};
use crate::adapt::{Adaptation, Calibration, ExportInfo, LoadAdapter, initialize, load};
use crate::base::{Base, resolve, stage};
use crate::batching::Order;
use crate::checkpoint::{self, Inputs, TrainerState, read_state};
use crate::config::{FinetuningType, Key, LearningRate, Mark, Strategy, TrainConfig, marked};
use crate::dataset::{DataOptions, Dataset, Known, calibration_examples, data_checksum, read_dataset};
use crate::device::{self, Arithmetic};
use crate::dist::ProcessGroup;
use crate::estimate::MemoryEstimate;
use crate::objective::Objective;
use crate::observer::{Level, Observer, Stage};
use crate::optim::Optimizer;
use crate::rate::FoundRate;
use crate::report::Reporter;
use crate::{Error, Result};
use loram_core::Statistic;
use loram_io::chat::ChatTemplate;
use loram_io::data::Example;
use loram_io::init::InitOptions;
use loram_nn::{HeadKind, LoadOptions, Model, cuda};
use std::path::{Path, PathBuf};

/// Data of a run and their division into steps.
pub(crate) struct Data {
    pub train: Dataset,
    pub eval: Option<Dataset>,
    pub order: Order,
    /// Batches of an optimiser step, over all ranks.
    pub batches_per_step: usize,
    pub steps_per_epoch: usize,
    pub total_steps: usize,
    pub sizes: Sizes,
}

/// Reads and prepares all data of a run whose optimiser steps have so many batches.
pub(crate) fn read_data(
    config: &TrainConfig,
    base: &Base,
    batches_per_step: usize,
    observer: &mut dyn Observer,
) -> Result<Data> {
    let train = read_dataset(base, &DataOptions::training(config), Known::Nothing, observer)?;
    let eval = match config.evaluation() {
        Strategy::No if config.eval_data.is_empty() => None,
        _ => Some(read_dataset(
            base,
            &DataOptions::evaluation(config),
            Known::Fixed(train.objective, &train.labels),
            observer,
        )?),
    };
    let seed = config.data_seed.unwrap_or(config.seed);
    let batch = config.per_device_train_batch_size;
    let mut lengths: Vec<usize> = train.examples.iter().map(Example::tokens).collect();
    let packing = config.packing;
    if packing && train.head() != HeadKind::LanguageModel {
        return Err(Error::Config("packing is for language models: a head reads one text at a time".into()));
    }
    if packing && train.objective.over_answers() {
        let task = train.objective.name();
        return Err(Error::Config(format!("packing is for texts: the task {task} reads each answer by itself")));
    }
    check_preferences(config, train.objective)?;
    if config.pooling.is_some() && !matches!(train.head(), HeadKind::Pooled { .. }) {
        let what = "is for classification and regression, which read a text as one vector";
        return Err(Error::Config(format!("pooling {what}; the task is {}", train.objective.name())));
    }
    let sources: Vec<(usize, f64)> = train.sources.iter().map(|s| (s.examples, s.weight)).collect();
    let mut order = match (sources.is_empty(), packing) {
        (true, true) => Order::packed(&lengths, train.max_length, batch, seed),
        (true, false) => Order::single(lengths.len(), batch, seed),
        (false, _) => Order::mixed(&lengths, &sources, packing.then_some(train.max_length), batch, seed),
    };
    if config.group_by_length {
        order = order.grouped(&lengths, batch * batches_per_step);
    }
    let steps_per_epoch = order.batches().div_ceil(batches_per_step);
    let total_steps = match config.max_steps {
        Some(n) => n,
        None => (config.num_train_epochs * steps_per_epoch as f64).ceil() as usize,
    };
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    let sizes = match packing {
        true => Sizes { longest: train.max_length, batch: batch.min(order.rows()) * train.max_length },
        false => Sizes { longest: lengths.first().copied().unwrap_or(0), batch: lengths.iter().take(batch).sum() },
    };
    Ok(Data { train, eval, order, batches_per_step, steps_per_epoch, total_steps, sizes })
}

/// Everything that the training loop needs.
pub(crate) struct Setup<'c> {
    pub config: &'c TrainConfig,
    pub base: Base,
    pub data: Data,
    pub model: Model,
    /// `None` in full fine-tuning.
    pub adaptation: Option<Adaptation>,
    pub optimizer: Optimizer,
    pub state: TrainerState,
    /// The checkpoint to resume from.
    pub resumed: Option<PathBuf>,
    pub info: ExportInfo,
    /// Estimated memory of the largest step.
    pub memory: MemoryEstimate,
    /// Tokens of a forward pass at most.
    pub max_tokens: Option<usize>,
}

impl<'c> Setup<'c> {
    /// Peak learning rate.
    pub fn learning_rate(&self) -> f64 {
        self.state.rate.as_ref().map_or(0.0, |r| r.learning_rate)
    }

    /// `rates` is the folder of earlier searches for learning rates.
    pub fn new(
        config: &'c TrainConfig,
        resumed: Option<PathBuf>,
        rates: Option<&Path>,
        group: &ProcessGroup,
        reporter: &mut Reporter<'_>,
    ) -> Result<Setup<'c>> {
        let arithmetic = Arithmetic::of(config)?;
        let base = Base::of(config, reporter)?;
        let saved = resumed.as_deref().map(read_state).transpose()?;
        let batches_per_step = batches_per_step(config, saved.as_ref(), group, reporter);
        let mut data = read_data(config, &base, batches_per_step, reporter)?;
        tell_about_data(&data, config, reporter);
        if let Some(warning) = end_of_turn_warning(&data.train, config, &base)? {
            reporter.message(Level::Warning, warning);
        }
        check_metric(config, data.train.objective)?;
        let mut state = TrainerState {
            max_steps: data.total_steps,
            batches_per_step: Some(data.batches_per_step),
            config: config.fixed_keys(device::name(arithmetic.compute), arithmetic.dtype(&base.checkpoint)),
            inputs: Inputs {
                base: None,
                train_data: Some(data_checksum(&data.train.examples)),
                eval_data: data.eval.as_ref().map(|e| data_checksum(&e.examples)),
            },
            ..TrainerState::default()
        };
        check_same_inputs(&state.inputs, group)?;
        if let (Some(dir), Some(saved)) = (&resumed, saved) {
            state.inputs.base = Some(base.checksum()(true)?);
            let changed = checkpoint::check_same_run(dir, &saved, &state, config.allow_changed_inputs)?;
            if !changed.is_empty() {
                let text = format!("{} changed since this run began (allow_changed_inputs)", changed.join(" and "));
                reporter.message(Level::Warning, text);
            }
            state = TrainerState { inputs: state.inputs, ..saved };
        }
        // a resumed run keeps the passes that it began with, for the same bits
        let mut passes = Passes::new(config, &base, data.sizes, state.max_tokens_per_batch)?;
        if config.auto_find_batch_size && !group.is_solo() {
            // the machine with the least free memory decides
            let all = group.gather(&passes.max_tokens.unwrap_or(usize::MAX).to_le_bytes())?;
            let all = all.iter().filter_map(|b| Some(usize::from_le_bytes(b[..].try_into().ok()?)));
            let least = all.min().filter(|n| *n < usize::MAX);
            passes = Passes::new(config, &base, data.sizes, least)?;
        }
        state.max_tokens_per_batch = passes.max_tokens.filter(|_| config.auto_find_batch_size);
        if let Some(text) = passes.message(config, data.sizes) {
            reporter.message(Level::Info, text);
        }
        let memory = passes.memory;
        if let Some(warning) = memory.check(config)? {
            reporter.message(Level::Warning, warning);
        }
        if arithmetic.compute.on_gpu() {
            let text = format!("device: {}, bfloat16 with f32 adapters", cuda::info()?.name());
            reporter.message(Level::Info, text);
        } else if let Some(kernel) = arithmetic.kernel(&base.checkpoint) {
            let text = format!("products with frozen weights: bfloat16 with f32 sums ({})", kernel.name());
            reporter.message(Level::Info, text);
        }
        let options = LoadOptions {
            gradient_checkpointing: config.gradient_checkpointing,
            seed: config.seed,
            dropout: config.model_dropout && !data.train.objective.over_answers(),
            ..arithmetic.options(data.train.head())
        };
        let again = data.total_steps > data.steps_per_epoch;
        reference::settle(config, &base, (&mut data.train, data.eval.as_mut()), again, &options, reporter)?;
        let searched = match state.rate.is_none() && needs_search(config)? {
            true => Some(group.from_first(|| {
                let set = SearchSet::new(&data.train);
                set.job(config, &base, &options, passes.max_tokens).searched(rates, reporter)
            })?),
            false => None,
        };
        // a rate that was given is not searched for, but an earlier search may know better
        let given = config.learning_rate.value().filter(|_| state.rate.is_none() && searched.is_none());
        let earlier = match given.and(rates) {
            Some(cache) => SearchSet::new(&data.train).job(config, &base, &options, passes.max_tokens).known(cache)?,
            None => None,
        };
        // factors that follow the run's first step need a rate before there is a model to convert it for
        let near = match (&state.rate, &searched) {
            (Some(rate), _) => config.at(rate.learning_rate),
            (None, Some(s)) if config.learning_rate.value().is_none() => config.at(s.search.learning_rate),
            _ => config.clone(),
        };
        stage(reporter, Stage::Model, 0, 1, &base.name);
        let mut model = base.model(&options)?;
        stage(reporter, Stage::Model, 1, 1, &base.name);
        let adaptation = match config.finetuning_type {
            FinetuningType::Full => {
                model.full_finetune()?;
                if let Some(dir) = &resumed {
                    checkpoint::restore_weights(dir, &mut model)?;
                }
                None
            }
            FinetuningType::Lora => {
                let (from, share) = (resumed.as_deref(), searched.as_ref().map(|s| s.search.step_size));
                let mut a = adapt_model(&near, &base, &mut model, &data.train, from, share, reporter)?;
                if let Some(recipe) = &mut a.recipe {
                    recipe.labels = (!data.train.labels.is_empty()).then(|| data.train.labels.clone());
                    let pooled = matches!(data.train.head(), HeadKind::Pooled { .. });
                    recipe.pooling = base.config.pooling().filter(|_| pooled);
                    recipe.problem_type = data.train.objective.problem_type();
                }
                Some(a)
            }
        };
        let head = base.new_head(config, &model)?;
        let rate = match state.rate.take() {
            Some(rate) => rate,
            // processors may round differently
            None => group.from_first(|| FoundRate::of(config, &base, &model, adaptation.as_ref(), searched))?,
        };
        if resumed.is_none() {
            tell_about_rate(&rate, reporter);
        }
        if let (Some(given), Some(earlier)) = (given, earlier) {
            let auto = TrainConfig { learning_rate: LearningRate::Auto, ..config.clone() };
            let found = FoundRate::of(&auto, &base, &model, adaptation.as_ref(), Some(earlier))?;
            if let Some(far) = found.far_from(given) {
                let found = found.learning_rate;
                let text = format!(
                    "learning_rate: {given:e} is {far} the {found:.2e} that an earlier search on this model and data found"
                );
                reporter.message(Level::Info, text);
            }
        }
        let mut optimizer = Optimizer::with_head(&config.at(rate.learning_rate), head.as_ref(), model.params().iter())?;
        state.rate = Some(rate);
        if let Some(dir) = &resumed {
            checkpoint::restore_optimizer(dir, &model, &mut optimizer, state.global_step)?;
        }
        start_alike(&mut model, &base, group, reporter)?;
        let info = ExportInfo::of(&base, data.train.head());
        let max_tokens = passes.max_tokens;
        Ok(Setup { config, base, data, model, adaptation, optimizer, state, resumed, info, memory, max_tokens })
    }
}

/// Batches of a step over all ranks. A resumed run keeps what it began with, for any number of ranks.
fn batches_per_step(
    config: &TrainConfig,
    saved: Option<&TrainerState>,
    group: &ProcessGroup,
    reporter: &mut Reporter<'_>,
) -> usize {
    let now = config.gradient_accumulation_steps * group.world();
    let then = saved.map_or(now, |s| s.batches_per_step.unwrap_or(config.gradient_accumulation_steps));
    if then != now {
        let ranks = if group.is_solo() { "one process".into() } else { format!("{} ranks", group.world()) };
        let text = format!("each step keeps the {then} batches that it had when this run began, now in {ranks}");
        reporter.message(Level::Info, text);
    }
    then
}

/// Attaches adapters to the model: those of a checkpoint, those of an adapter to train further, or new ones. `share` is the size
/// of the run's first step, as far as a search has found it.
fn adapt_model(
    config: &TrainConfig,
    base: &Base,
    model: &mut Model,
    train: &Dataset,
    resumed: Option<&Path>,
    share: Option<f64>,
    reporter: &mut Reporter<'_>,
) -> Result<Adaptation> {
    let given = config.adapter_name_or_path.as_deref().map(|a| resolve(a, None, reporter)).transpose()?;
    if let Some(dir) = resumed.or(given.as_deref()) {
        let how = LoadAdapter { train: true, dropout: config.lora_dropout, base: config.base };
        let (adaptation, warnings) = load(model, &base.checkpoint, &base.config, dir, how)?;
        for w in warnings {
            reporter.message(Level::Warning, w);
        }
        return Ok(adaptation);
    }
    let lora = base.lora_config(config, model)?;
    let options = InitOptions { lora, scheme: config.scheme_of_step(share)?, seed: config.seed };
    let examples = match (options.scheme.statistic(), config.calibration_data.is_empty()) {
        (Statistic::None, _) => Vec::new(),
        (_, true) => calibration_examples(config, &train.examples),
        (_, false) => {
            let known = Known::Fixed(train.objective, &train.labels);
            let set = read_dataset(base, &DataOptions::calibration(config), known, reporter)?;
            calibration_examples(config, &set.examples)
        }
    };
    let calibration =
        Calibration { task: train.task(), examples: &examples, batch_size: config.per_device_train_batch_size };
    let mut adaptation = initialize(model, &options, config.base, calibration, &mut |done, total, path| {
        stage(reporter, Stage::Initialization, done as u64, total as u64, path);
    })?;
    adaptation.identify(&base.checkpoint, &base.config)?;
    Ok(adaptation)
}

/// A chat whose turns end with words instead of a token teaches the model to spell that end out.
fn end_of_turn_warning(train: &Dataset, config: &TrainConfig, base: &Base) -> Result<Option<String>> {
    if !train.chat {
        return Ok(None);
    }
    let Some(end) = ChatTemplate::new(&base.tokenizer, config.chat_template.as_deref(), &config.chat_template_kwargs)?
        .end_of_turn()
    else {
        return Ok(None);
    };
    let tokens = base.tokenizer.encode(&end, false)?.ids.len();
    Ok((tokens > 1).then(|| {
        format!(
            "the chat template ends turns with `{end}`, for which this tokenizer has no token of its own ({tokens} pieces): \
             programs that stop at a token will not stop there; a template that ends turns with the model's end of text \
             would be better"
        )
    }))
}

/// Keys of losses that the objective does not have would have no effect.
fn check_preferences(config: &TrainConfig, objective: &dyn Objective) -> Result<()> {
    let without_effect = |key: &&Key| config.differs_from_default(key) && !objective.settings().contains(&key.name);
    match marked(Mark::Preference).find(without_effect) {
        None => Ok(()),
        Some(key) => {
            let has = match objective.settings() {
                [] => "no settings of a loss".to_string(),
                settings => settings.join(", "),
            };
            Err(Error::Config(format!("{} has no effect on the task {}, which has {has}", key.name, objective.name())))
        }
    }
}

/// The metric that decides must be one that evaluations give.
fn check_metric(config: &TrainConfig, objective: &dyn Objective) -> Result<()> {
    let name = config.best_metric();
    let known: Vec<&str> = objective.metrics().iter().filter(|m| !m.of_examples).map(|m| m.name).collect();
    match !config.tracks_best() || known.contains(&name) {
        true => Ok(()),
        false => Err(Error::Config(format!(
            "metric_for_best_model: there is no `{name}` here; there are {}",
            known.join(", ")
        ))),
    }
}

fn tell_about_data(data: &Data, config: &TrainConfig, reporter: &mut Reporter<'_>) {
    for text in data_warnings(&data.train, data.eval.as_ref(), config) {
        reporter.message(Level::Warning, text);
    }
    if config.packing {
        let (rows, n) = (data.order.rows(), data.train.report.examples);
        reporter
            .message(Level::Info, format!("packing: {n} examples in {rows} rows of {} tokens", data.train.max_length));
    }
}
