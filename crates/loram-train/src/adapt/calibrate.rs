//! Statistics for data-driven initialisations: the model runs on calibration examples while some layers are observed.

use crate::objective::{Task, batch_and_loss, objectives};
use crate::{Error, Result};
use loram_core::{
    Components, LayerPlan, LoraConfig, Observed, SchemeSpec, Statistic, TargetModules, principal_components,
    redistribute_ranks,
};
use loram_io::data::Example;
use loram_nn::{Model, Observe};

/// Bytes of statistics that are held at a time. The examples are run once for each group of layers that fits; the result
/// does not depend on it.
const MEMORY: usize = 2 << 30;

/// The data of a data-driven initialisation.
#[derive(Debug, Clone, Copy)]
pub struct Calibration<'a> {
    /// The task of the run.
    pub task: Task<'a>,
    /// Examples for the task of the model.
    pub examples: &'a [Example],
    /// Examples in a pass.
    pub batch_size: usize,
}

/// Ranges of layers whose statistics are held together, in the order of the model.
fn groups(plans: &[LayerPlan], statistic: Statistic) -> Vec<std::ops::Range<usize>> {
    let mut out = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (i, p) in plans.iter().enumerate() {
        let own = 4 * statistic.values(p.n, p.m);
        if i > first && bytes + own > MEMORY {
            out.push(first..i);
            (first, bytes) = (i, 0);
        }
        bytes += own;
    }
    out.push(first..plans.len());
    out
}

/// Runs the model for each group of layers, and gives every layer's statistic to `each`, in the order of `plans`; it is
/// dropped after that. `progress` gets passes done and passes in all.
pub(super) fn observe(
    model: &mut Model,
    plans: &[LayerPlan],
    spec: &SchemeSpec,
    data: Calibration<'_>,
    progress: &mut dyn FnMut(usize, usize, &str),
    each: &mut dyn FnMut(&Model, &LayerPlan, Observed) -> Result<()>,
) -> Result<()> {
    let statistic = spec.statistic();
    let what = match statistic {
        Statistic::None => return Ok(()),
        Statistic::InputCovariance => Observe::Covariance,
        Statistic::InputMoment => Observe::Moment,
        Statistic::Gradient => Observe::Gradient,
    };
    if data.examples.is_empty() {
        return Err(Error::Config(format!("`{spec}` runs the model on data: give calibration_data")));
    }
    let units: usize = data.examples.iter().map(Example::units).sum();
    let groups = groups(plans, statistic);
    let passes = groups.len() * data.examples.len();
    for (k, group) in groups.into_iter().enumerate() {
        model.observe(what, plans[group.clone()].iter().map(|p| p.path.clone()));
        for (i, examples) in data.examples.chunks(data.batch_size.max(1)).enumerate() {
            progress(k * data.examples.len() + i * data.batch_size, passes, "calibration");
            let sequences = || examples.iter().flat_map(|e| &e.sequences);
            // as in PEFT's EVA, only tokens that the loss counts
            let mask: Vec<bool> = match statistic {
                Statistic::InputCovariance if sequences().all(|s| !s.loss_mask.is_empty()) => {
                    sequences().flat_map(|s| s.loss_mask.iter().copied()).collect()
                }
                _ => Vec::new(),
            };
            let (batch, mut loss) = batch_and_loss(data.task, model, examples)?;
            model.observe_batch(&batch, &mut *loss, &mask, 1.0 / units.max(1) as f64)?;
        }
        let mut found = model.observed()?;
        model.params_mut().zero_grads()?;
        for plan in &plans[group] {
            let values = found
                .remove(&plan.path)
                .ok_or_else(|| Error::Data(format!("layer `{}`: the calibration data never reach it", plan.path)))?;
            let observed = match statistic {
                Statistic::InputCovariance => {
                    let count = spec.components(plan);
                    Observed::Components(principal_components(&plan.path, &values, plan.m, count)?)
                }
                Statistic::Gradient => Observed::Gradient(values),
                _ => Observed::InputMoment(values),
            };
            each(model, plan, observed)?;
        }
    }
    progress(passes, passes, "");
    Ok(())
}

impl Default for Calibration<'_> {
    /// No data, for initialisations that need none.
    fn default() -> Calibration<'static> {
        Calibration { task: Task::new(objectives()[0], &[]), examples: &[], batch_size: 1 }
    }
}

/// EVA's ranks: what the components are worth in all layers together, written into the settings as PEFT writes them.
/// Layers whose rank is 0 leave the lists.
pub(super) fn redistribute(config: &mut LoraConfig, plans: &mut Vec<LayerPlan>, components: &mut Vec<Components>) {
    redistribute_ranks(config, plans, components);
    let mut keep = plans.iter().map(|p| p.r > 0);
    components.retain(|_| keep.next().unwrap_or(false));
    let before = plans.len();
    plans.retain(|p| p.r > 0);
    if plans.len() < before {
        config.target_modules = TargetModules::Names(plans.iter().map(|p| p.path.clone()).collect());
        config.exclude_modules = None;
        config.layers_to_transform = None;
        config.layers_pattern = None;
    }
    config.set_ranks(plans.iter().map(|p| (p.path.as_str(), p.r)));
    config.set_alphas(plans.iter().map(|p| (p.path.as_str(), p.lora_alpha)));
}
