//! Types of single keys that are more than one scalar or list.

use super::key_type::{FlagForm, KeyType, text};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The name of a scheme. PEFT's `true` is `lora`, its default initialisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeName(pub String);

impl KeyType for SchemeName {
    const PLACEHOLDER: &'static str = "SCHEME";
    fn expected() -> String {
        let names: Vec<&str> = loram_core::registry().iter().map(|s| s.name).collect();
        format!("the name of a scheme ({})", names.join(", "))
    }
    fn schema() -> Value {
        let names: Vec<&str> = loram_core::registry().iter().map(|s| s.name).collect();
        json!({ "anyOf": [{ "enum": names }, { "const": true }] })
    }
    fn read(value: &Value) -> Option<SchemeName> {
        match value {
            Value::Bool(true) => Some(SchemeName("lora".into())),
            Value::String(s) if s == "true" => Some(SchemeName("lora".into())),
            Value::String(s) if !s.is_empty() => Some(SchemeName(s.clone())),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        json!(self.0)
    }
}

/// The checkpoint that a run resumes from: `null`, a path, or `true`/`"auto"` for the latest one in `output_dir`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Begin at step 0.
    No,
    /// Resume from the latest checkpoint in `output_dir`; begin at step 0 when there is none.
    Latest,
    /// Resume from this checkpoint folder.
    From(PathBuf),
}

impl KeyType for Resume {
    const FORM: FlagForm = FlagForm::Optional("auto");
    const PLACEHOLDER: &'static str = "CHECKPOINT";
    fn expected() -> String {
        "null, \"auto\" (the latest checkpoint in output_dir), or a checkpoint folder".into()
    }
    fn schema() -> Value {
        json!({ "type": ["string", "boolean", "null"] })
    }
    fn read(value: &Value) -> Option<Resume> {
        match value {
            Value::Null | Value::Bool(false) => Some(Resume::No),
            Value::Bool(true) => Some(Resume::Latest),
            Value::String(s) => Some(match s.as_str() {
                "" | "null" | "none" | "false" => Resume::No,
                "auto" | "true" | "latest" => Resume::Latest,
                path => Resume::From(path.into()),
            }),
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            Resume::No => Value::Null,
            Resume::Latest => json!("auto"),
            Resume::From(path) => json!(path.to_string_lossy()),
        }
    }
}

/// Prompts whose continuations are shown before and after training.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SamplePrompts {
    /// These texts.
    Texts(Vec<String>),
    /// The prompts of the first n evaluation examples (training examples when there is no evaluation data).
    First(usize),
}

impl KeyType for SamplePrompts {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "a list of prompts, or how many evaluation examples to take".into()
    }
    fn schema() -> Value {
        json!({ "anyOf": [usize::schema(), { "type": "array", "items": String::schema() }, { "type": ["string", "null"] }] })
    }
    fn read(value: &Value) -> Option<SamplePrompts> {
        match value {
            Value::Null => Some(SamplePrompts::First(0)),
            Value::Array(list) => Some(SamplePrompts::Texts(list.iter().map(text).collect::<Option<_>>()?)),
            Value::Number(_) => usize::read(value).map(SamplePrompts::First),
            Value::String(s) => {
                Some(s.parse().map_or_else(|_| SamplePrompts::Texts(vec![s.clone()]), SamplePrompts::First))
            }
            _ => None,
        }
    }
    fn write(&self) -> Value {
        match self {
            SamplePrompts::Texts(list) => json!(list),
            SamplePrompts::First(n) => json!(n),
        }
    }
}

/// Where metrics are reported besides `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReportTo {
    /// TensorBoard event files in the run folder.
    pub tensorboard: bool,
    /// The MLflow server that `MLFLOW_TRACKING_URI` names.
    pub mlflow: bool,
}

impl ReportTo {
    /// TensorBoard alone, the default.
    pub const TENSORBOARD: ReportTo = ReportTo { tensorboard: true, mlflow: false };
}

impl KeyType for ReportTo {
    const FORM: FlagForm = FlagForm::List;
    fn expected() -> String {
        "tensorboard, mlflow, a list of them, or none".into()
    }
    fn schema() -> Value {
        let names = json!({ "enum": ["tensorboard", "mlflow", "none"] });
        json!({ "anyOf": [names, { "type": "array", "items": names }] })
    }
    fn read(value: &Value) -> Option<ReportTo> {
        let names = match value {
            Value::Array(list) => list.iter().map(text).collect::<Option<Vec<_>>>()?,
            other => text(other)?.split(',').map(|name| name.trim().to_string()).collect(),
        };
        let mut out = ReportTo::default();
        for name in names {
            match name.as_str() {
                "tensorboard" | "all" => out.tensorboard = true,
                "mlflow" => out.mlflow = true,
                "none" | "no" | "" => {}
                _ => return None,
            }
        }
        Some(out)
    }
    fn write(&self) -> Value {
        match (self.tensorboard, self.mlflow) {
            (false, false) => json!("none"),
            (true, false) => json!("tensorboard"),
            (false, true) => json!("mlflow"),
            (true, true) => json!(["tensorboard", "mlflow"]),
        }
    }
}
