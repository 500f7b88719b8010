//! What sits on top of the blocks: the kind of head, its labels, and the names of activations.

use super::fields::Fields;
use crate::{Error, ModelConfig, Result};
use serde_json::{Map, Value, json};

/// The head that a checkpoint was saved with, from `architectures`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Head {
    /// `…Model`: none.
    Base,
    /// `…ForCausalLM`: a next-token head.
    CausalLm,
    /// `…ForSequenceClassification`: classification or regression.
    SequenceClassification,
    /// Any other, e.g. `BertForMaskedLM`, whose extra tensors are left aside.
    Other(String),
}

impl Head {
    pub(crate) fn parse(f: &Fields<'_>, decoder: bool) -> Result<Head> {
        let none = if decoder { Head::CausalLm } else { Head::Base };
        let Some(list) = f.get("architectures") else { return Ok(none) };
        let list = list.as_array().ok_or_else(|| f.error("architectures", "expected a list of class names"))?;
        let Some(first) = list.first() else { return Ok(none) };
        let name = first.as_str().ok_or_else(|| f.error("architectures", "expected a list of class names"))?;
        Ok(if name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") {
            Head::CausalLm
        } else if name.ends_with("ForSequenceClassification") {
            Head::SequenceClassification
        } else if name.ends_with("Model") && !name.contains("For") {
            Head::Base
        } else {
            Head::Other(name.to_string())
        })
    }
}

/// What a head with labels computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    /// One number, mean squared error.
    Regression,
    /// One of the labels, cross-entropy.
    SingleLabel,
    /// Any number of the labels.
    MultiLabel,
}

/// Labels of a classification head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels {
    /// Names by id; `LABEL_0`, `LABEL_1` when the config names none.
    pub names: Vec<String>,
    /// As the config says; `None` leaves it to the data.
    pub problem_type: Option<ProblemType>,
}

impl Labels {
    /// Number of outputs of the head.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when there is no label.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn parse(f: &Fields<'_>) -> Result<Labels> {
        let problem_type = match f.opt_str("problem_type")? {
            None => None,
            Some("regression") => Some(ProblemType::Regression),
            Some("single_label_classification") => Some(ProblemType::SingleLabel),
            Some("multi_label_classification") => Some(ProblemType::MultiLabel),
            Some(other) => return Err(f.error("problem_type", format!("unknown problem type `{other}`"))),
        };
        let names = match f.object("id2label")? {
            // the default of transformers, which two-label models do not write down
            None => (0..f.usize("num_labels", 2)?).map(|i| format!("LABEL_{i}")).collect(),
            Some(map) => {
                let mut names = vec![None; map.len()];
                for (id, name) in map {
                    let slot = id.parse::<usize>().ok().and_then(|i| names.get_mut(i));
                    match (slot, name.as_str()) {
                        (Some(slot @ None), Some(name)) => *slot = Some(name.to_string()),
                        _ => {
                            let what =
                                format!("expected ids 0 to {} with a name each, found {id}: {name}", map.len() - 1);
                            return Err(f.error("id2label", what));
                        }
                    }
                }
                names.into_iter().flatten().collect()
            }
        };
        Ok(Labels { names, problem_type })
    }
}

/// What `config.json` says when a trained sequence-classification head is saved with the model: class, labels and kind of
/// problem. Without labels the head is a regression with one output.
pub fn head_entries(config: &ModelConfig, labels: &[String]) -> Map<String, Value> {
    let (problem, names) = match labels {
        [] => ("regression", vec!["LABEL_0".to_string()]),
        some => ("single_label_classification", some.to_vec()),
    };
    let by_id = |(i, n): (usize, &String)| (i.to_string(), json!(n));
    let by_name = |(i, n): (usize, &String)| (n.clone(), json!(i));
    let entries = [
        ("architectures", json!([config.class_name(&Head::SequenceClassification)])),
        ("problem_type", json!(problem)),
        ("id2label", Value::Object(names.iter().enumerate().map(by_id).collect())),
        ("label2id", Value::Object(names.iter().enumerate().map(by_name).collect())),
    ];
    entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}

/// Activation functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x·σ(x).
    Silu,
    /// x·Φ(x), exactly.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Activation {
    /// The activation of a name in transformers; `None` when it is not supported.
    pub fn parse(name: &str) -> Option<Activation> {
        Some(match name {
            "silu" | "swish" => Activation::Silu,
            "gelu" | "gelu_python" => Activation::Gelu,
            // five names of one formula
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
                Activation::GeluTanh
            }
            "relu" => Activation::Relu,
            _ => return None,
        })
    }

    pub(crate) fn unsupported(f: &Fields<'_>, field: &str, name: &str) -> Error {
        f.error(field, format!("activation `{name}` is not supported; supported: silu, gelu, gelu_new, relu"))
    }
}
