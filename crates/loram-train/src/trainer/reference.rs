//! Log-probabilities of the reference of preferences, computed once before training.

use crate::adapt::{LoadAdapter, load};
use crate::base::{Base, resolve, stage};
use crate::config::{FinetuningType, TrainConfig};
use crate::dataset::Dataset;
use crate::objective::add_reference;
use crate::observer::{Observer, Stage};
use crate::{Error, Result};
use loram_nn::LoadOptions;

/// Adds the reference to the examples where it is settled before training. The model is one of its own, so that a resumed run has
/// the same reference, and it is the adapter that is trained further where there is one, as in TRL. `again` is true when training
/// sees examples more than once.
pub(super) fn settle(
    config: &TrainConfig,
    base: &Base,
    (train, eval): (&mut Dataset, Option<&mut Dataset>),
    again: bool,
    options: &LoadOptions,
    observer: &mut dyn Observer,
) -> Result<()> {
    let objective = train.objective;
    if !objective.reference() {
        return Ok(());
    }
    let full = config.finetuning_type == FinetuningType::Full;
    let changed = match (&config.adapter_name_or_path, full) {
        (Some(_), _) => Some("an adapter that is trained further"),
        (None, true) => Some("full fine-tuning"),
        (None, false) => None,
    };
    if let Some(changed) = changed {
        let name = objective.name();
        let wrong = |what: String| Err(Error::Config(what));
        if objective.needs_adapters(&train.loss) {
            return wrong(format!(
                "the task {name} switches adapters off in every step to measure how far the model has gone, which does not go \
                 with {changed}: merge the adapter first (loram merge) and train a new one, or set loss_type: apo_zero_unpaired"
            ));
        }
        if config.precompute_ref_log_probs == Some(false) {
            return wrong(format!("precompute_ref_log_probs: false does not go with {changed}: remove the key"));
        }
    }
    let settles = config.precompute_ref_log_probs.unwrap_or(changed.is_some() || again);
    // evaluations repeat
    let eval = eval.filter(|_| settles || config.precompute_ref_log_probs.is_none());
    if !settles && eval.is_none() {
        return Ok(());
    }
    let mut model = base.model(&LoadOptions { dropout: false, ..*options })?;
    if let Some(adapter) = &config.adapter_name_or_path {
        let dir = resolve(adapter, None, observer)?;
        load(&mut model, &base.checkpoint, &base.config, &dir, LoadAdapter::frozen())?;
    }
    for set in Some(train).filter(|_| settles).into_iter().chain(eval) {
        let total = set.examples.len() as u64;
        add_reference(&model, &mut set.examples, config.per_device_eval_batch_size, &mut |done| {
            stage(observer, Stage::Reference, done as u64, total, "");
        })?;
    }
    Ok(())
}
