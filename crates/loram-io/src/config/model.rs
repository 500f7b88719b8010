//! The configuration of a supported model, whatever its family.

use super::decoder::DecoderConfig;
use super::encoder::EncoderConfig;
use super::head::{CheckpointHead, HeadKind, HeadLabels, POOLING, PoolingMode, ProblemType};
use super::modules::{FamilyNames, HeadLayout};
use crate::{Error, Result};
use serde_json::{Map, Value, json};

/// The configuration of a supported model.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a model has one")]
pub enum ModelConfig {
    /// A decoder-only language model.
    Decoder(DecoderConfig),
    /// A bidirectional encoder.
    Encoder(EncoderConfig),
}

impl ModelConfig {
    /// `model_type`.
    pub fn family(&self) -> &'static str {
        self.names().model_type
    }

    /// Names of the family.
    pub fn names(&self) -> &'static FamilyNames {
        match self {
            ModelConfig::Decoder(c) => c.names,
            ModelConfig::Encoder(c) => c.names,
        }
    }

    /// Width of the model.
    pub fn hidden_size(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.hidden_size,
            ModelConfig::Encoder(c) => c.hidden_size,
        }
    }

    /// Rows of the token embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.vocab_size,
            ModelConfig::Encoder(c) => c.vocab_size,
        }
    }

    /// Longest input in tokens that the model is made for.
    pub fn max_length(&self) -> usize {
        match self {
            ModelConfig::Decoder(c) => c.max_length,
            ModelConfig::Encoder(c) => c.max_length(),
        }
    }

    /// The class name in `architectures` of this family with a head, e.g. `BertForSequenceClassification`.
    pub fn class_name(&self, head: &CheckpointHead) -> String {
        let stem = self.names().class_stem;
        match head {
            CheckpointHead::Base => format!("{stem}Model"),
            CheckpointHead::CausalLm => format!("{stem}{}", self.names().causal_class),
            CheckpointHead::SequenceClassification => format!("{stem}ForSequenceClassification"),
            CheckpointHead::TokenClassification => format!("{stem}ForTokenClassification"),
            CheckpointHead::Other(name) => name.clone(),
        }
    }

    /// The weights of the next-token head and of the token embedding, by name in the task model, where they are one.
    pub fn tied_weights(&self) -> Option<(String, String)> {
        let tied = matches!(self, ModelConfig::Decoder(c) if c.tie_word_embeddings);
        let names = self.names();
        let head = names.lm_head.filter(|_| tied)?;
        Some((format!("{head}.weight"), format!("{}.weight", names.embedding_path())))
    }

    /// [`DecoderConfig::expert_layers`]; an encoder has none.
    pub fn expert_layers(&self) -> &'static [&'static str] {
        match self {
            ModelConfig::Decoder(c) => c.expert_layers(),
            ModelConfig::Encoder(_) => &[],
        }
    }

    /// The head of the checkpoint.
    pub fn head(&self) -> &CheckpointHead {
        match self {
            ModelConfig::Decoder(c) => &c.head,
            ModelConfig::Encoder(c) => &c.head,
        }
    }

    /// HeadLabels of the head.
    pub fn labels(&self) -> &HeadLabels {
        match self {
            ModelConfig::Decoder(c) => &c.labels,
            ModelConfig::Encoder(c) => &c.labels,
        }
    }

    /// The file as it was read.
    pub fn raw(&self) -> &Map<String, Value> {
        match self {
            ModelConfig::Decoder(c) => &c.raw,
            ModelConfig::Encoder(c) => &c.raw,
        }
    }

    /// The states that a head for sequences reads, where that is another choice than the family's own.
    pub fn pooling(&self) -> Option<PoolingMode> {
        match self {
            ModelConfig::Decoder(c) => c.pooling,
            ModelConfig::Encoder(c) => c.pooling,
        }
    }

    /// Sets the states that a head for sequences reads; `None` leaves it as it is.
    ///
    /// # Errors
    /// The checkpoint has a head that was trained on others; the family's class has a setting for the pooling that does not know
    /// this one.
    pub fn set_pooling(&mut self, mode: Option<PoolingMode>) -> Result<()> {
        let Some(mode) = mode else { return Ok(()) };
        // the family's own for decoders
        let wanted = Some(mode).filter(|m| !(matches!(self, ModelConfig::Decoder(_)) && *m == PoolingMode::Last));
        if wanted == self.pooling() {
            return Ok(());
        }
        if self.trained_head().is_some() {
            let own = self.pooling().map_or("of its class", PoolingMode::as_str);
            return Err(Error::Usage(format!(
                "pooling is {}, but the model has a head already ({}), with the pooling {own}: leave pooling out, or start from a \
                 checkpoint without a head",
                mode.as_str(),
                self.class_name(self.head())
            )));
        }
        match self {
            ModelConfig::Encoder(c) if c.modules.classifier.sets_pooling && mode == PoolingMode::Last => {
                let what = "the class of transformers for this family takes cls and mean";
                return Err(Error::Usage(format!("pooling is {}: {what} ({})", mode.as_str(), c.names.model_type)));
            }
            ModelConfig::Decoder(c) => c.pooling = wanted,
            ModelConfig::Encoder(c) => c.pooling = wanted,
        }
        Ok(())
    }

    /// Returns whether a head for sequences has a pooling that no class of transformers for sequences has. Its outputs are those of the
    /// class for token classification, pooled.
    pub fn pools_token_outputs(&self) -> bool {
        let is_setting = matches!(self, ModelConfig::Encoder(c) if c.modules.classifier.sets_pooling);
        self.pooling().is_some() && !is_setting
    }

    /// The class of transformers with a head of this kind, see [`Self::pools_token_outputs`].
    pub fn head_class(&self, kind: HeadKind) -> CheckpointHead {
        match kind {
            HeadKind::LanguageModel => CheckpointHead::CausalLm,
            HeadKind::Pooled { .. } if !self.pools_token_outputs() => CheckpointHead::SequenceClassification,
            HeadKind::Pooled { .. } | HeadKind::Tokens { .. } => CheckpointHead::TokenClassification,
        }
    }

    /// PEFT's `task_type` of an adapter for a head of this kind.
    pub fn task_type(&self, kind: HeadKind) -> &'static str {
        match self.head_class(kind) {
            CheckpointHead::SequenceClassification => "SEQ_CLS",
            CheckpointHead::TokenClassification => "TOKEN_CLS",
            _ => "CAUSAL_LM",
        }
    }

    /// The head of this kind; `None` when the family has no such head.
    pub fn head_layout(&self, kind: HeadKind) -> Option<HeadLayout> {
        match self {
            ModelConfig::Decoder(c) => c.head_layout(kind),
            ModelConfig::Encoder(c) => c.head_layout(kind),
        }
    }

    /// The head of a model loaded from this checkpoint: as it was saved, else that of the family's usual task.
    pub fn own_head_kind(&self) -> HeadKind {
        let outputs = self.labels().len();
        match (self.head(), self) {
            (CheckpointHead::TokenClassification, _) if !self.pools_token_outputs() => HeadKind::Tokens { outputs },
            (CheckpointHead::TokenClassification | CheckpointHead::SequenceClassification, _)
            | (_, ModelConfig::Encoder(_)) => HeadKind::Pooled { outputs },
            (_, ModelConfig::Decoder(_)) => HeadKind::LanguageModel,
        }
    }

    /// The head that the checkpoint was saved with, if that is one for classification or regression.
    pub fn trained_head(&self) -> Option<HeadKind> {
        let trained =
            matches!(self.head(), CheckpointHead::SequenceClassification | CheckpointHead::TokenClassification);
        trained.then(|| self.own_head_kind())
    }

    /// The layout of [`Self::own_head_kind`].
    pub fn own_head(&self) -> Option<HeadLayout> {
        self.head_layout(self.own_head_kind())
    }

    /// Layers of the backbone that are there for the family's head for sequences alone, and that its own head does not use.
    pub(crate) fn without_use(&self) -> Vec<&'static str> {
        let ModelConfig::Encoder(c) = self else { return Vec::new() };
        let uses = |path: &str| self.own_head().is_some_and(|head| head.layers().any(|l| l.path == path));
        [c.modules.classifier.dense].into_iter().filter(|path| !uses(path)).collect()
    }
}

/// The entries of `config.json` for a trained head that is saved with the model: class, labels, kind of problem and pooling. A head
/// for sequences without labels is a regression with one output. `problem_type` is that of a head for sequences with labels.
pub fn head_entries(
    config: &ModelConfig,
    kind: HeadKind,
    labels: &[String],
    problem_type: Option<ProblemType>,
) -> Map<String, Value> {
    let (problem, names) = match labels {
        [] => (ProblemType::Regression, vec!["LABEL_0".to_string()]),
        some => (problem_type.unwrap_or(ProblemType::SingleLabel), some.to_vec()),
    };
    let by_id = |(i, n): (usize, &String)| (i.to_string(), json!(n));
    let by_name = |(i, n): (usize, &String)| (n.clone(), json!(i));
    let sequences = matches!(kind, HeadKind::Pooled { .. });
    let entries = [
        ("architectures", Some(json!([config.class_name(&config.head_class(kind))]))),
        ("problem_type", sequences.then(|| json!(problem))),
        ("id2label", Some(Value::Object(names.iter().enumerate().map(by_id).collect()))),
        ("label2id", Some(Value::Object(names.iter().enumerate().map(by_name).collect()))),
        (POOLING, config.pooling().filter(|_| sequences).map(|mode| json!(mode))),
    ];
    entries.into_iter().filter_map(|(k, v)| Some((k.to_string(), v?))).collect()
}
