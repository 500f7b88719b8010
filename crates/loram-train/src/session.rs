//! A trained model made ready for evaluation and generation.

use crate::adapt::{Adaptation, LoadAdapter, load};
use crate::base::{Base, BaseWeights, resolve, stage};
use crate::config::{ComputeDtype, DeviceKind};
use crate::dataset::{DataOptions, Dataset, Known, data_checksum, read_dataset};
use crate::device::Arithmetic;
use crate::dist::ProcessGroup;
use crate::evaluate::{EvalOptions, evaluate_in};
use crate::generate::GenerateOptions;
use crate::objective::{Objective, Trained, of_model};
use crate::observer::{Observer, Stage};
use crate::{Error, Metrics, Result};
use loram_io::Adapter;
use loram_nn::{HeadKind, Model};

/// A model with its adapter, to evaluate and to generate with.
pub struct Session {
    /// The model folder.
    pub base: Base,
    /// The model, with its adapter on.
    pub model: Model,
    /// The adapter, when there is one.
    pub adaptation: Option<Adaptation>,
    /// The objective that it was trained for.
    pub objective: &'static dyn Objective,
    /// Labels of the head.
    pub labels: Vec<String>,
    /// Warnings about the adapter.
    pub warnings: Vec<String>,
    /// The processes that evaluate together.
    pub group: ProcessGroup,
}

/// A model and an adapter to open.
#[derive(Debug, Clone, Default)]
pub struct SessionOptions {
    /// Model folder, GGUF file or hub id; empty: the base that the adapter names.
    pub model: String,
    /// Revision on the hub.
    pub revision: Option<String>,
    /// Adapter folder or hub id.
    pub adapter: Option<String>,
    /// The objective; `None`: from the adapter, else from the model's head.
    pub task: Option<&'static dyn Objective>,
    /// The weights of the base.
    pub weights: BaseWeights,
    /// Where to run.
    pub device: DeviceKind,
    /// Number type of products with frozen weights.
    pub compute_dtype: ComputeDtype,
}

impl Session {
    /// Opens a model and puts an adapter on it.
    pub fn open(options: &SessionOptions, observer: &mut dyn Observer) -> Result<Session> {
        let arithmetic = Arithmetic::resolve(options.device, options.compute_dtype)?;
        let dir = options.adapter.as_deref().map(|a| resolve(a, None, observer)).transpose()?;
        let adapter = dir.as_deref().map(Adapter::read).transpose()?;
        let mut name = options.model.clone();
        let mut revision = options.revision.clone();
        if name.is_empty() {
            let named = adapter.as_ref().and_then(|a| a.base_model.clone());
            name =
                named.ok_or_else(|| Error::Config("no model is given, and no adapter that names its base".into()))?;
            revision = revision.or_else(|| adapter.as_ref().and_then(|a| a.revision.clone()));
        }
        let four_bit = options.weights.four_bit(adapter.as_ref());
        let mut base =
            Base::open(&name, revision.as_deref(), four_bit, observer).map_err(|e| match options.model.is_empty() {
                true => {
                    Error::Config(format!("the base model that the adapter names: {e} (or name the base with --model)"))
                }
                false => e,
            })?;
        base.config.set_pooling(adapter.as_ref().and_then(|a| a.recipe.as_ref()?.pooling))?;
        let trained = Trained {
            config: &base.config,
            head: adapter.as_ref().and_then(|a| a.head(&base.config)),
            problem_type: adapter.as_ref().map_or(base.config.labels().problem_type, |a| a.problem_type(&base.config)),
            labels: adapter.as_ref().and_then(|a| a.recipe.as_ref()?.labels.as_deref()),
        };
        let objective = options.task.unwrap_or_else(|| of_model(&trained));
        let labels = objective.trained_labels(&trained);
        let head = objective.head(&labels);
        stage(observer, Stage::Model, 0, 1, &name);
        let mut model = base.model(&arithmetic.options(head))?;
        stage(observer, Stage::Model, 1, 1, &name);
        let (mut adaptation, mut warnings) = (None, Vec::new());
        if let Some(dir) = &dir {
            let (a, w) = load(&mut model, &base.checkpoint, &base.config, dir, LoadAdapter::frozen())?;
            (adaptation, warnings) = (Some(a), w);
        }
        Ok(Session { base, model, adaptation, objective, labels, warnings, group: ProcessGroup::default() })
    }

    /// Reads data for this model's objective and evaluates it on them.
    pub fn evaluate(
        &mut self,
        data: &DataOptions,
        options: EvalOptions,
        observer: &mut dyn Observer,
    ) -> Result<(Metrics, Dataset)> {
        let set = self.read(data, observer)?;
        check_same_data(&set, &self.group)?;
        let metrics =
            evaluate_in(&self.group, &mut self.model, set.task(), &set.examples, options, &mut |done, total| {
                stage(observer, Stage::Evaluate, done as u64, total as u64, "");
            })?;
        Ok((metrics, set))
    }

    /// Reads data for this model: for the task that they name, else for the model's own, or for another with the same head if that is
    /// the data's.
    pub fn read(&self, data: &DataOptions, observer: &mut dyn Observer) -> Result<Dataset> {
        let head = self.objective.head(&self.labels);
        let known = match data.task.filter(|task| task.head(&self.labels) == head) {
            Some(task) => Known::Fixed(task, &self.labels),
            None if head == HeadKind::LanguageModel => Known::Head(self.objective, &self.labels),
            None => Known::Fixed(self.objective, &self.labels),
        };
        read_dataset(&self.base, data, known, observer)
    }

    /// Greedy generation with this model's ends of text and length.
    pub fn generate_options(&self) -> GenerateOptions {
        GenerateOptions::greedy(&self.base.tokenizer, &self.base.generation, self.base.config.max_length())
    }
}

/// Every rank evaluates parts of the same data: an error names the rank that has others.
fn check_same_data(set: &Dataset, group: &ProcessGroup) -> Result<()> {
    group.same(data_checksum(&set.examples).as_bytes(), "has other evaluation data than rank 0", "the same files")
}
