//! The head that a checkpoint was saved with, and its labels.

use super::fields::Fields;
use crate::Result;
use crate::limits::MAX_LABELS;
use serde_json::{Map, Value};

/// The head that a checkpoint was saved with, from `architectures`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointHead {
    /// `…Model`: none.
    Base,
    /// `…ForCausalLM`: a next-token head.
    CausalLm,
    /// `…ForSequenceClassification`: classification or regression.
    SequenceClassification,
    /// Any other, e.g. `BertForMaskedLM`, whose extra tensors are left aside.
    Other(String),
}

impl CheckpointHead {
    pub(crate) fn parse(f: &Fields<'_>, decoder: bool) -> Result<CheckpointHead> {
        let none = if decoder { CheckpointHead::CausalLm } else { CheckpointHead::Base };
        let Some(list) = f.get("architectures") else { return Ok(none) };
        let list = list.as_array().ok_or_else(|| f.error("architectures", "expected a list of class names"))?;
        let Some(first) = list.first() else { return Ok(none) };
        let name = first.as_str().ok_or_else(|| f.error("architectures", "expected a list of class names"))?;
        Ok(if name.ends_with("ForCausalLM") || name.ends_with("LMHeadModel") {
            CheckpointHead::CausalLm
        } else if name.ends_with("ForSequenceClassification") {
            CheckpointHead::SequenceClassification
        } else if name.ends_with("Model") && !name.contains("For") {
            CheckpointHead::Base
        } else {
            CheckpointHead::Other(name.to_string())
        })
    }
}

/// The kind of problem that a head with labels solves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemType {
    /// One number, mean squared error.
    Regression,
    /// One of the labels, cross-entropy.
    SingleLabel,
    /// Any number of the labels.
    MultiLabel,
}

/// HeadLabels of a classification head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadLabels {
    /// Names by id; `LABEL_0`, `LABEL_1` when the config names none.
    pub names: Vec<String>,
    /// As the config says; `None` leaves it to the data.
    pub problem_type: Option<ProblemType>,
}

impl HeadLabels {
    /// Number of outputs of the head.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when there is no label.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn parse(f: &Fields<'_>) -> Result<HeadLabels> {
        let problem_type = match f.opt_str("problem_type")? {
            None => None,
            Some("regression") => Some(ProblemType::Regression),
            Some("single_label_classification") => Some(ProblemType::SingleLabel),
            Some("multi_label_classification") => Some(ProblemType::MultiLabel),
            Some(other) => return Err(f.error("problem_type", format!("unknown problem type `{other}`"))),
        };
        let names = match f.object("id2label")? {
            // the default of transformers, which two-label models do not write down
            None => match f.usize("num_labels", 2)? {
                n @ ..=MAX_LABELS => (0..n).map(|i| format!("LABEL_{i}")).collect(),
                n => {
                    return Err(
                        f.error("num_labels", format!("{n} classes are too many, at most {MAX_LABELS} are supported"))
                    );
                }
            },
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
        Ok(HeadLabels { names, problem_type })
    }
}

/// Standard deviation that `config.json` names for new weights (`initializer_range`, 0.02 by default).
pub(super) fn init_std(raw: &Map<String, Value>) -> f64 {
    raw.get("initializer_range").and_then(Value::as_f64).unwrap_or(0.02)
}
