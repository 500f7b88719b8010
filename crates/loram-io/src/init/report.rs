//! The report of an initialisation.

use crate::adapter::{AdapterForm, Recipe};
use serde::Serialize;

/// An initialised layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitializedLayer {
    /// Module path.
    pub path: String,
    /// Output and input features.
    pub shape: [usize; 2],
    /// Rank.
    pub r: usize,
    /// Factor on B·A.
    pub scaling: f64,
    /// Q\[r\] of LoRAM.
    pub gain: Option<f64>,
    /// Scale of LoRAM's bases.
    pub beta: Option<f64>,
}

/// Layers and cost of an initialisation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InitReport {
    /// Canonical name of the scheme.
    pub scheme: String,
    /// Layers in the order of the model.
    pub layers: Vec<InitializedLayer>,
    /// Number of values in all A and B.
    pub trainable_parameters: u64,
    /// Bytes of weights that were read.
    pub bytes_read: u64,
    /// Wall time, without a residual checkpoint.
    pub seconds: f64,
    /// The factors belong to a changed base: then the adapter is in native form, unless the residual checkpoint is written
    /// too.
    pub changes_base: bool,
    /// Form of the adapter.
    pub form: AdapterForm,
}

impl InitReport {
    /// The report of a recipe whose form is that of the factors, with its layers in the order of `paths`. Bytes and time
    /// are 0.
    pub fn new<'a>(recipe: &Recipe, paths: impl IntoIterator<Item = &'a str>) -> InitReport {
        let layer = |path: &str| {
            let l = recipe.layers.get(path)?;
            let (path, shape) = (path.to_string(), [l.n, l.m]);
            Some(InitializedLayer { path, shape, r: l.r, scaling: l.scaling, gain: l.gain, beta: l.beta })
        };
        let layers: Vec<InitializedLayer> = paths.into_iter().filter_map(layer).collect();
        InitReport {
            scheme: recipe.scheme.clone(),
            trainable_parameters: layers.iter().map(|l| ((l.shape[0] + l.shape[1]) * l.r) as u64).sum(),
            layers,
            bytes_read: 0,
            seconds: 0.0,
            changes_base: recipe.form == AdapterForm::Native,
            form: recipe.form,
        }
    }
}
