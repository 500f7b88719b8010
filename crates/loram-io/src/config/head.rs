//! The head that a checkpoint was saved with, and its labels.

use super::fields::Fields;
use crate::Result;
use crate::limits::MAX_LABELS;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The kind of head that a model has for a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadKind {
    /// `lm_head`: a score for every entry of the vocabulary, for each token.
    LanguageModel,
    /// Reads each sequence as one vector.
    Pooled {
        /// Number of outputs per sequence.
        outputs: usize,
    },
    /// Reads each token.
    Tokens {
        /// Number of outputs per token.
        outputs: usize,
    },
}

impl HeadKind {
    /// The number of outputs per sequence or token; `None` for a language model.
    pub fn outputs(self) -> Option<usize> {
        match self {
            HeadKind::LanguageModel => None,
            HeadKind::Pooled { outputs } | HeadKind::Tokens { outputs } => Some(outputs),
        }
    }
}

/// How the states of a sequence become the one vector that a head reads, by the names of sentence-transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolingMode {
    /// The state of the first token.
    Cls,
    /// The mean of the states of all tokens.
    Mean,
    /// The state of the last token.
    Last,
}

/// The field of `config.json` with the pooling of a classification head, as ModernBERT has it.
pub(super) const POOLING: &str = "classifier_pooling";

impl PoolingMode {
    /// The name in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            PoolingMode::Cls => "cls",
            PoolingMode::Mean => "mean",
            PoolingMode::Last => "last",
        }
    }

    /// The pooling that `config.json` names, if it names one.
    pub(crate) fn parse(f: &Fields<'_>) -> Result<Option<PoolingMode>> {
        match f.opt_str(POOLING)? {
            None => Ok(None),
            Some("cls") => Ok(Some(PoolingMode::Cls)),
            Some("mean") => Ok(Some(PoolingMode::Mean)),
            Some("last") => Ok(Some(PoolingMode::Last)),
            Some(other) => Err(f.error(POOLING, format!("`{other}` is not supported; supported: cls, mean, last"))),
        }
    }
}

/// The head that a checkpoint was saved with, from `architectures`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointHead {
    /// `…Model`: none.
    Base,
    /// `…ForCausalLM`: a next-token head.
    CausalLm,
    /// `…ForSequenceClassification`: classification or regression.
    SequenceClassification,
    /// `…ForTokenClassification`: a label for each token.
    TokenClassification,
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
        } else if name.ends_with("ForTokenClassification") {
            CheckpointHead::TokenClassification
        } else if name.ends_with("Model") && !name.contains("For") {
            CheckpointHead::Base
        } else {
            CheckpointHead::Other(name.to_string())
        })
    }
}

/// The kind of problem that a head with labels solves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProblemType {
    /// One number, mean squared error.
    #[serde(rename = "regression")]
    Regression,
    /// One of the labels, cross-entropy.
    #[serde(rename = "single_label_classification")]
    SingleLabel,
    /// Any number of the labels, binary cross-entropy of each.
    #[serde(rename = "multi_label_classification")]
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
