//! `metrics.jsonl` of a run folder: loss curves, and magnitudes if the run measured them.

use crate::stats::Curve;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// The size of the layers' updates relative to their weights: ‖ΔW‖ / ‖W‖ by layer and step.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Magnitudes {
    /// Module paths, in the order of the model.
    pub layers: Vec<String>,
    /// Steps.
    pub steps: Vec<f64>,
    /// For each layer, the value at each step; `None` if it was not measured.
    pub relative: Vec<Vec<Option<f64>>>,
}

/// The content of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MetricsFile {
    /// Training loss by step; each value is the mean since the previous one.
    pub train: Curve,
    /// Loss on the held-out data by step.
    pub eval: Curve,
    /// Magnitudes; `None` if no line has any.
    pub magnitudes: Option<Magnitudes>,
}

/// Reads the file; a missing file is read as an empty one.
pub fn read_metrics(path: &Path) -> Result<MetricsFile> {
    let mut out = MetricsFile::default();
    let mut measured: Vec<(f64, Value)> = Vec::new();
    let text = loram_io::input::read_text_if_there(path)?.unwrap_or_default();
    for (i, line) in text.lines().enumerate() {
        let bad = |what: String| Error::folder(path, format!("line {}: {what}", i + 1));
        let mut record: Value = serde_json::from_str(line).map_err(|e| bad(format!("malformed JSON: {e}")))?;
        let step = record["step"].as_f64().ok_or_else(|| bad("no `step`".into()))?;
        for (curve, key) in [(&mut out.train, "loss"), (&mut out.eval, "eval_loss")] {
            // a loss that is NaN or infinite is written as null
            if let Some(v) = record[key].as_f64() {
                curve.steps.push(step);
                curve.values.push(v);
            }
        }
        if record["magnitude"].is_object() {
            measured.push((step, record["magnitude"].take()));
        }
    }
    out.magnitudes = magnitudes(&measured);
    Ok(out)
}

fn magnitudes(measured: &[(f64, Value)]) -> Option<Magnitudes> {
    let layers: Vec<String> = measured.first()?.1.as_object()?.keys().cloned().collect();
    let value = |record: &Value, layer: &String| record[layer]["relative"].as_f64();
    let row = |layer: &String| measured.iter().map(|(_, record)| value(record, layer)).collect::<Vec<_>>();
    let relative: Vec<Vec<Option<f64>>> = layers.iter().map(row).collect();
    let any = relative.iter().flatten().any(Option::is_some);
    any.then(|| Magnitudes { relative, steps: measured.iter().map(|m| m.0).collect(), layers })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_and_magnitudes_from_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let text = r#"{"step":0,"epoch":0.0,"eval_loss":2.0}
{"step":10,"epoch":0.5,"loss":1.5}
{"step":10,"epoch":0.5,"magnitude":{"q_proj":{"nu_a":1.0,"relative":0.01},"up_proj":{"nu_a":1.0}}}
{"step":20,"epoch":1.0,"loss":null,"eval_loss":1.0}
"#;
        std::fs::write(&path, text).unwrap();
        let m = read_metrics(&path).unwrap();
        assert_eq!((m.train.steps, m.train.values), (vec![10.0], vec![1.5]));
        assert_eq!((m.eval.steps, m.eval.values), (vec![0.0, 20.0], vec![2.0, 1.0]));
        let g = m.magnitudes.unwrap();
        assert_eq!((g.steps, g.relative), (vec![10.0], vec![vec![Some(0.01)], vec![None]]));
        std::fs::write(&path, "{\"epoch\": 1}\n").unwrap();
        assert!(read_metrics(&path).unwrap_err().to_string().contains("line 1: no `step`"));
    }
}
