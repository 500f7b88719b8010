//! The configuration of a supported model, whatever its family.

use super::decoder::DecoderConfig;
use super::encoder::EncoderConfig;
use super::head::{CheckpointHead, HeadLabels};
use super::modules::{FamilyNames, HeadLayout};
use serde_json::{Map, Value, json};

/// The configuration of a supported model.
#[derive(Debug, Clone)]
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
            CheckpointHead::CausalLm => format!("{stem}ForCausalLM"),
            CheckpointHead::SequenceClassification => format!("{stem}ForSequenceClassification"),
            CheckpointHead::Other(name) => name.clone(),
        }
    }

    /// Path of the output layer for classification or regression.
    pub fn classifier(&self) -> &'static str {
        match self {
            ModelConfig::Decoder(c) => c.modules.classifier,
            ModelConfig::Encoder(c) => c.modules.classifier.out,
        }
    }

    /// The weights of the next-token head and of the token embedding, by name in the task model, where they are one.
    pub fn tied_weights(&self) -> Option<(String, String)> {
        let tied = matches!(self, ModelConfig::Decoder(c) if c.tie_word_embeddings);
        let names = self.names();
        let head = names.lm_head.filter(|_| tied)?;
        Some((format!("{head}.weight"), format!("{}.weight", names.embedding_path())))
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

    /// The head for next-token prediction (`outputs` is `None`), or for classification or regression with so many outputs.
    /// `None` when the family has no such head.
    pub fn head_layout(&self, outputs: Option<usize>) -> Option<HeadLayout> {
        match self {
            ModelConfig::Decoder(c) => Some(c.head_layout(outputs)),
            ModelConfig::Encoder(c) => Some(c.head_layout(outputs?)),
        }
    }

    /// The head that a model loaded from this checkpoint gets: as it was saved, else that of the family's usual task.
    pub fn own_head(&self) -> HeadLayout {
        let labels = Some(self.labels().len());
        match self {
            ModelConfig::Decoder(c) if c.head != CheckpointHead::SequenceClassification => c.head_layout(None),
            ModelConfig::Decoder(c) => c.head_layout(labels),
            ModelConfig::Encoder(c) => c.head_layout(c.labels.len()),
        }
    }
}

/// The entries of `config.json` for a trained sequence-classification head that is saved with the model: class, labels and kind of
/// problem. Without labels the head is a regression with one output.
pub fn head_entries(config: &ModelConfig, labels: &[String]) -> Map<String, Value> {
    let (problem, names) = match labels {
        [] => ("regression", vec!["LABEL_0".to_string()]),
        some => ("single_label_classification", some.to_vec()),
    };
    let by_id = |(i, n): (usize, &String)| (i.to_string(), json!(n));
    let by_name = |(i, n): (usize, &String)| (n.clone(), json!(i));
    let entries = [
        ("architectures", json!([config.class_name(&CheckpointHead::SequenceClassification)])),
        ("problem_type", json!(problem)),
        ("id2label", Value::Object(names.iter().enumerate().map(by_id).collect())),
        ("label2id", Value::Object(names.iter().enumerate().map(by_name).collect())),
    ];
    entries.into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}
