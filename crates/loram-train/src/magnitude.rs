//! How far training moves each adapted layer, measured while it goes on (the magnitudes of 2507.06558).
//!
//! ν\[X\] = ‖X‖²_F / entries. Everything follows from the factors' Gram matrices: a layer (n, m) of rank r costs
//! O((n+m)·r²), and ΔW is never formed. Measuring reads only, so that a run has the same bits with it and without.

use crate::Result;
use crate::adapt::{Adaptation, AdaptedLayer};
use loram_core::magnitude::{Update, nu};
use loram_core::{Factors, LayerPlan};
use loram_io::{Checkpoint, ModelConfig, WeightNorms, weight_norms};
use loram_nn::Model;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Magnitudes of a step, by module path of the layer.
pub type Magnitudes = BTreeMap<String, LayerMagnitude>;

/// Magnitudes of one adapted layer after a step. A missing value was not measured or is not finite.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LayerMagnitude {
    /// ν\[A\].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_a: Option<f64>,
    /// ν\[B\].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_b: Option<f64>,
    /// ν\[ΔW\], ΔW against the untouched base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_update: Option<f64>,
    /// ν of the change of ΔW in this step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_step: Option<f64>,
    /// ‖ΔW‖_F / ‖W‖_F.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<f64>,
    /// ‖ΔW‖₂ / ‖W‖₂.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative_spectral: Option<f64>,
    /// ν of A's gradient in this step, before clipping; `None` when A is not trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_grad_a: Option<f64>,
    /// ν of B's gradient in this step, before clipping; `None` when B is not trained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nu_grad_b: Option<f64>,
}

impl LayerMagnitude {
    /// The measured values with their names in `metrics.jsonl`.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> + use<> {
        let all = [
            ("nu_a", self.nu_a),
            ("nu_b", self.nu_b),
            ("nu_update", self.nu_update),
            ("nu_step", self.nu_step),
            ("relative", self.relative),
            ("relative_spectral", self.relative_spectral),
            ("nu_grad_a", self.nu_grad_a),
            ("nu_grad_b", self.nu_grad_b),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?)))
    }
}

/// A measured layer.
struct MeteredLayer {
    plan: LayerPlan,
    /// The initial factors, where their product is subtracted from the base.
    init: Option<Factors>,
    /// Norms of the untouched base; `None` for a head that the checkpoint does not have.
    norms: Option<WeightNorms>,
}

/// A layer's state before the optimiser step.
struct Before {
    factors: Factors,
    nu_grad_a: Option<f64>,
    nu_grad_b: Option<f64>,
}

/// Measures the adapted layers of a run: [`MagnitudeMeter::before_step`] between the backward pass and clipping, then the
/// optimiser's step, then [`MagnitudeMeter::after_step`].
pub struct MagnitudeMeter {
    layers: Vec<MeteredLayer>,
    before: Vec<Option<Before>>,
}

impl MagnitudeMeter {
    /// A meter for the layers of an adaptation. Reads the norms of the untouched weights, in a few passes over them. Errors:
    /// weights that cannot be read.
    pub fn new(adaptation: &Adaptation, ckpt: &Checkpoint, config: &ModelConfig) -> Result<MagnitudeMeter> {
        let norms = weight_norms(ckpt, config, adaptation.layers.values().map(|l| &l.plan))?;
        let layer = |(l, norms): (&AdaptedLayer, _)| MeteredLayer {
            plan: l.plan.clone(),
            init: adaptation.initial(&l.plan.path),
            norms,
        };
        Ok(MagnitudeMeter { layers: adaptation.layers.values().zip(norms).map(layer).collect(), before: Vec::new() })
    }

    /// Records the factors and the magnitudes of their gradients.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn before_step(&mut self, model: &Model) -> Result<()> {
        let remember = |l: &MeteredLayer| {
            let path = &l.plan.path;
            let grad = |suffix: &str| -> Result<Option<f64>> {
                Ok(match model.params().get(&format!("{path}.{suffix}.weight")) {
                    Some(param) => finite(nu(&param.grad.values()?)),
                    None => None,
                })
            };
            let Some(factors) = model.factors(path)? else { return Ok(None) };
            Ok(Some(Before { factors, nu_grad_a: grad("lora_A")?, nu_grad_b: grad("lora_B")? }))
        };
        self.before = self.layers.par_iter().map(remember).collect::<Result<_>>()?;
        Ok(())
    }

    /// Measures the magnitudes. Without a [`MagnitudeMeter::before_step`] since the last call, the values of the step are `None`.
    ///
    /// # Errors
    /// A failure of the GPU.
    pub fn after_step(&mut self, model: &Model) -> Result<Magnitudes> {
        let mut before = std::mem::take(&mut self.before);
        before.resize_with(self.layers.len(), || None);
        let measure = |(l, before): (&MeteredLayer, Option<Before>)| {
            let factors = model.factors(&l.plan.path)?;
            Ok(factors.map(|f| (l.plan.path.clone(), l.measure(&f, before.as_ref()))))
        };
        let measured: Vec<_> = self.layers.par_iter().zip(before).map(measure).collect::<Result<_>>()?;
        Ok(measured.into_iter().flatten().collect())
    }
}

impl MeteredLayer {
    fn measure(&self, factors: &Factors, before: Option<&Before>) -> LayerMagnitude {
        let scaling = self.plan.scaling;
        let update = Update::new(factors, self.init.as_ref(), scaling);
        let step = |f: &Before| Update::new(factors, Some(&f.factors), scaling).nu();
        LayerMagnitude {
            nu_a: finite(nu(&factors.a)),
            nu_b: finite(nu(&factors.b)),
            nu_update: finite(update.nu()),
            nu_step: before.map(step).and_then(finite),
            relative: self.norms.and_then(|w| finite(update.frobenius() / w.frobenius)),
            relative_spectral: self.norms.and_then(|w| finite(update.spectral_norm() / w.spectral)),
            nu_grad_a: before.and_then(|f| f.nu_grad_a),
            nu_grad_b: before.and_then(|f| f.nu_grad_b),
        }
    }
}

/// Drops values that JSON cannot hold.
fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}
