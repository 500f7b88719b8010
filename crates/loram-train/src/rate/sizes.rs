//! D(η) of the model of a run: how far its first steps move the weights.

use crate::Result;
use crate::adapt::Adaptation;
use crate::base::Base;
use crate::config::TrainConfig;
use loram_core::growth::InitMagnitude;
use loram_core::{LayerPlan, StepSize};
use loram_io::frobenius_norms;
use loram_nn::Model;

/// D(η) of the adapters that are on the model, by the factors that they have now. Heads that begin at random do not count.
pub(super) fn of_adapters(config: &TrainConfig, base: &Base, model: &Model, adapters: &Adaptation) -> Result<StepSize> {
    // a pass over the weights only for those whose norm the initialisation has not seen
    let unknown = || adapters.layers.values().filter(|l| l.weight_norm.is_none());
    let mut norms = frobenius_norms(&base.checkpoint, &base.config, unknown().map(|l| &l.plan))?.into_iter();
    let [a, b] = config.factors_per_rate();
    let mut out = StepSize::new();
    for (path, layer) in &adapters.layers {
        let norm = layer.weight_norm.or_else(|| norms.next().flatten());
        let (Some(norm), Some(factors)) = (norm, model.factors(path)?) else { continue };
        let trains = |factor: &str| model.params().get(&format!("{path}.{factor}.weight")).is_some();
        let trained = [trains("lora_A"), trains("lora_B")];
        let LayerPlan { n, m, scaling, .. } = layer.plan;
        let init = InitMagnitude::of_factors(&factors, scaling, trained);
        let k = [if trained[0] { a } else { 0.0 }, if trained[1] { b } else { 0.0 }];
        out.add(config.step_kind(), &init, (n, m), norm, k);
    }
    Ok(out)
}

/// D(η) of full fine-tuning: of its weights as they are now.
pub(super) fn of_weights(model: &Model) -> Result<StepSize> {
    let mut out = StepSize::new();
    for param in model.params().iter() {
        if let &[n, m] = &param.shape[..] {
            let squares: f64 = param.value.values()?.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            out.add_full((n, m), squares.sqrt());
        }
    }
    Ok(out)
}
