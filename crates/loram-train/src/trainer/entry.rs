//! The public type of a run: its configuration, its stop flag, its preview, and training from its first step to its summary.

use super::preview::{Preview, preview};
use super::run::Run;
use super::setup::Setup;
use super::stop::StopFlag;
use crate::Result;
use crate::base::with_base_model;
use crate::config::{LearningRate, Mark, TrainConfig};
use crate::dist::ProcessGroup;
use crate::groups::Group;
use crate::observer::{Event, Level, Observer};
use crate::rate::FoundRate;
use crate::report::Reporter;
use crate::run_folder::{Begin, RunFolder, ended_text};
use crate::summary::Summary;
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// The learning rates that a run would have.
#[derive(Debug, Clone, Serialize)]
pub struct RatePlan {
    /// The peak learning rate and how it was found.
    #[serde(flatten)]
    pub rate: FoundRate,
    /// Groups of parameters with their own peak learning rates.
    pub groups: Vec<Group>,
}

/// A run that is ready to begin.
#[derive(Debug, Clone)]
pub struct Trainer {
    config: TrainConfig,
    stop: StopFlag,
    rates: Option<PathBuf>,
    group: ProcessGroup,
}

impl Trainer {
    /// A run of this configuration. Errors: keys that are missing or do not go together.
    pub fn new(config: TrainConfig) -> Result<Trainer> {
        config.check()?;
        Ok(Trainer { config, stop: StopFlag::default(), rates: None, group: ProcessGroup::default() })
    }

    /// The same with a folder in which searches for learning rates are kept, for repeated runs; without it there is none.
    #[must_use]
    pub fn with_rate_cache(self, folder: Option<PathBuf>) -> Trainer {
        Trainer { rates: folder, ..self }
    }

    /// The same as one rank of several that train the run together.
    #[must_use]
    pub fn in_group(self, group: ProcessGroup) -> Trainer {
        Trainer { group, ..self }
    }

    /// The configuration.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The flag that stops this run.
    pub fn stop_flag(&self) -> StopFlag {
        self.stop.clone()
    }

    /// Describes what the run would do, without loading weights or writing anything (`--dry-run`).
    pub fn preview(&self, observer: &mut dyn Observer) -> Result<Preview> {
        preview(&with_base_model(&self.config, observer)?, self.group.world(), observer)
    }

    /// Finds the learning rate that `auto` gives this run, without training: loads the model, and writes nothing but the cache
    /// of searches. With learning rates of A and B in the configuration, their ratio is kept and the rate is that of A.
    pub fn find_rate(&self, observer: &mut dyn Observer) -> Result<RatePlan> {
        let mut reporter = Reporter::new(observer);
        let given = with_base_model(&self.config, &mut reporter)?;
        let [a, b] = given.factors_per_rate();
        let config = TrainConfig {
            learning_rate: LearningRate::Auto,
            lr_a: None,
            lr_b: None,
            loraplus_lr_ratio: Some(b / a).filter(|ratio| *ratio != 1.0),
            eval_data: Vec::new(),
            eval_strategy: None,
            eval_steps: None,
            load_best_model_at_end: false,
            metric_for_best_model: None,
            early_stopping_patience: None,
            ..given
        };
        let setup = Setup::new(&config, None, self.rates.as_deref(), &ProcessGroup::default(), &mut reporter)?;
        let groups = setup.optimizer.groups().to_vec();
        Ok(RatePlan { rate: setup.state.rate.expect("a run that is set up has a rate"), groups })
    }

    /// Trains. The run folder is written as it goes; the same configuration, seed and machine give the same bits. A run that
    /// has ended in that folder is not trained again; its summary is returned.
    ///
    /// In a group of processes all ranks call this; rank 0 writes and observes, and all return the same error.
    ///
    /// Errors leave the run folder with what was saved before them.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Summary> {
        let mut silent = ();
        let observer = if self.group.is_first() { observer } else { &mut silent };
        self.group.agree(self.run_rank(observer))
    }

    fn run_rank(&self, observer: &mut dyn Observer) -> Result<Summary> {
        let (mut reporter, group) = (Reporter::new(observer), &self.group);
        let config = group.agree(with_base_model(&self.config, &mut reporter))?;
        check_same_configuration(&config, group)?;
        // the folder is ours until the end
        let mut folder = None;
        let begin = group.from_first(|| {
            let opened = folder.insert(RunFolder::open(&config)?);
            opened.notes.drain(..).for_each(|note| reporter.message(Level::Warning, note));
            Ok(std::mem::replace(&mut opened.begin, Begin::Anew))
        })?;
        let resumed = match begin {
            Begin::Anew => None,
            Begin::Resume(checkpoint) => Some(checkpoint),
            Begin::Ended(summary) => {
                reporter.message(Level::Info, ended_text(&config));
                reporter.event(&Event::Done(summary.clone()));
                return Ok(*summary);
            }
        };
        let setup = group.agree(Setup::new(&config, resumed, self.rates.as_deref(), group, &mut reporter))?;
        let mut run = group.agree(Run::new(setup, &self.stop, group, &mut reporter))?;
        let status = run.train()?;
        run.finish(status)
    }
}

/// Every rank trains the same run: an error names the keys in which one differs from rank 0.
fn check_same_configuration(config: &TrainConfig, group: &ProcessGroup) -> Result<()> {
    if group.is_solo() {
        return Ok(());
    }
    // folders may be called otherwise on another machine, but for the run's own all ranks need the one of rank 0
    let mine = config.values_of(|k| !k.is(Mark::Folder) && !k.is(Mark::Cosmetic));
    let mine = serde_json::to_vec(&mine).expect("a configuration is plain data");
    let all = group.gather(&mine)?;
    let read = |bytes: &[u8]| serde_json::from_slice::<Map<String, Value>>(bytes).unwrap_or_default();
    let first = read(&all[0]);
    for (rank, bytes) in all.iter().enumerate() {
        let other = read(bytes);
        let differing: Vec<String> = first
            .iter()
            .filter(|(k, v)| other.get(*k) != Some(v))
            .map(|(k, v)| format!("{k} ({} there, {v} on rank 0)", other.get(k).unwrap_or(&Value::Null)))
            .collect();
        if !differing.is_empty() {
            return Err(group.common(format!(
                "{} is configured differently: {}; give all ranks the same configuration",
                group.name(rank),
                differing.join(", ")
            )));
        }
    }
    Ok(())
}
