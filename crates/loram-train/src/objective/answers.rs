//! The columns of predictions.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// `prediction` and `probabilities`.
pub(super) fn columns(prediction: impl Serialize, probabilities: impl Serialize) -> Map<String, Value> {
    [("prediction", json!(prediction)), ("probabilities", json!(probabilities))]
        .map(|(k, v)| (k.to_string(), v))
        .into_iter()
        .collect()
}

/// Probabilities of the classes.
pub(super) fn softmax(row: &[f32]) -> Vec<f64> {
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exp: Vec<f64> = row.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| x / sum).collect()
}
