//! From the loosely typed values of YAML, `--set` and flags to the types of the keys.

use loram_core::{OneOrMany, TargetModules};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A type that a configuration key can have.
pub trait KeyType: Sized {
    /// What is expected, for messages: "a whole number".
    fn expected() -> String;
    /// Reads a value; `None` when it has another type.
    fn read(value: &Value) -> Option<Self>;
    /// The value as it is written to `config.yaml`.
    fn write(&self) -> Value;
}

impl KeyType for bool {
    fn expected() -> String {
        "true or false".into()
    }
    fn read(value: &Value) -> Option<bool> {
        match value {
            Value::Bool(b) => Some(*b),
            Value::String(s) => match s.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" => Some(true),
                "false" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

/// The text of a scalar: YAML reads `--set output_dir=2024` as a number.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(n) => Some(n.to_string()),
        Value::Bool(b) => Some(b.to_string()),
        _ => None,
    }
}

fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64().or_else(|| {
            let x = n.as_f64()?;
            (x >= 0.0 && x.fract() == 0.0 && x < 9e15).then_some(x as u64)
        }),
        Value::String(s) => s.replace('_', "").parse().ok(),
        _ => None,
    }
}

impl KeyType for usize {
    fn expected() -> String {
        "a whole number, 0 or more".into()
    }
    fn read(value: &Value) -> Option<usize> {
        whole(value)?.try_into().ok()
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for u64 {
    fn expected() -> String {
        "a whole number, 0 or more".into()
    }
    fn read(value: &Value) -> Option<u64> {
        whole(value)
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for f64 {
    fn expected() -> String {
        "a number".into()
    }
    fn read(value: &Value) -> Option<f64> {
        match value {
            Value::Number(n) => n.as_f64(),
            // YAML 1.1 readers take `2e-5` for text, so people quote it
            Value::String(s) => s.parse().ok(),
            _ => None,
        }
        .filter(|x: &f64| x.is_finite())
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for String {
    fn expected() -> String {
        "text".into()
    }
    fn read(value: &Value) -> Option<String> {
        text(value)
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for PathBuf {
    fn expected() -> String {
        "a path".into()
    }
    fn read(value: &Value) -> Option<PathBuf> {
        text(value).filter(|t| !t.is_empty()).map(PathBuf::from)
    }
    fn write(&self) -> Value {
        json!(self.to_string_lossy())
    }
}

impl<T: KeyType> KeyType for Option<T> {
    fn expected() -> String {
        format!("{}, or null", T::expected())
    }
    fn read(value: &Value) -> Option<Option<T>> {
        match value {
            Value::Null => Some(None),
            Value::String(s) if s.is_empty() || s == "null" || s == "none" => T::read(value).map(Some).or(Some(None)),
            other => T::read(other).map(Some),
        }
    }
    fn write(&self) -> Value {
        self.as_ref().map_or(Value::Null, T::write)
    }
}

/// A list; one text or one text with commas is a list too.
impl KeyType for Vec<String> {
    fn expected() -> String {
        "a list of texts".into()
    }
    fn read(value: &Value) -> Option<Vec<String>> {
        match value {
            Value::Null => Some(Vec::new()),
            Value::Array(list) => list.iter().map(text).collect(),
            other => {
                Some(text(other)?.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_string).collect())
            }
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

macro_rules! map_type {
    ($value:ty, $expected:literal) => {
        impl KeyType for BTreeMap<String, $value> {
            fn expected() -> String {
                $expected.into()
            }
            fn read(value: &Value) -> Option<Self> {
                match value {
                    Value::Null => Some(BTreeMap::new()),
                    Value::Object(map) => {
                        map.iter().map(|(k, v)| Some((k.clone(), <$value as KeyType>::read(v)?))).collect()
                    }
                    _ => None,
                }
            }
            fn write(&self) -> Value {
                Value::Object(self.iter().map(|(k, v)| (k.clone(), v.write())).collect::<Map<_, _>>())
            }
        }
    };
}
map_type!(usize, "a map from module pattern to whole number");
map_type!(f64, "a map from module pattern to number");
map_type!(String, "a map from name to name");

/// A list of names; `all-linear` is one only by itself.
fn named_targets(names: Vec<String>) -> Option<TargetModules> {
    match names.iter().any(|n| n.eq_ignore_ascii_case("all-linear")) {
        true => (names.len() == 1).then_some(TargetModules::AllLinear),
        false => (!names.is_empty()).then_some(TargetModules::Names(names)),
    }
}

impl KeyType for TargetModules {
    fn expected() -> String {
        "\"all-linear\", a list of module names, or a regular expression".into()
    }
    fn read(value: &Value) -> Option<TargetModules> {
        match value {
            Value::Array(list) => named_targets(list.iter().map(text).collect::<Option<_>>()?),
            Value::String(s) if s.eq_ignore_ascii_case("all-linear") => Some(TargetModules::AllLinear),
            // PEFT takes every other string for an expression that must match a whole path; a bare name never does
            Value::String(s) if s.contains(['^', '$', '*', '+', '?', '(', '[', '{', '|', '\\']) => {
                Some(TargetModules::Regex(s.clone()))
            }
            Value::String(s) => {
                named_targets(s.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_string).collect())
            }
            _ => None,
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for OneOrMany<usize> {
    fn expected() -> String {
        "a block number or a list of them".into()
    }
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(list) => Some(OneOrMany::Many(list.iter().map(usize::read).collect::<Option<_>>()?)),
            Value::String(s) if s.contains(',') => {
                let list = s.split(',').map(|t| t.trim().parse().ok());
                Some(OneOrMany::Many(list.collect::<Option<_>>()?))
            }
            other => usize::read(other).map(OneOrMany::One),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

impl KeyType for OneOrMany<String> {
    fn expected() -> String {
        "a name or a list of names".into()
    }
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Array(list) => Some(OneOrMany::Many(list.iter().map(text).collect::<Option<_>>()?)),
            other => text(other).map(OneOrMany::One),
        }
    }
    fn write(&self) -> Value {
        json!(self)
    }
}

/// Name of a start; PEFT's `true` is its default, Noise & Zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemeName(pub String);

impl KeyType for SchemeName {
    fn expected() -> String {
        let names: Vec<&str> = loram_core::registry().iter().map(|s| s.name).collect();
        format!("the name of a start ({})", names.join(", "))
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

/// `null`, a path, or `true`/`"auto"` for the latest checkpoint in the output folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Start anew.
    No,
    /// The latest checkpoint in `output_dir`; a new start when there is none.
    Latest,
    /// This checkpoint folder.
    From(PathBuf),
}

impl KeyType for Resume {
    fn expected() -> String {
        "null, \"auto\" (the latest checkpoint in output_dir), or a checkpoint folder".into()
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
    fn expected() -> String {
        "a list of prompts, or how many evaluation examples to take".into()
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

/// Defines an enum of named choices.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal $(| $other:literal)*),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant),* }

        impl $name {
            /// The name in configuration files.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text),* }
            }
        }

        impl KeyType for $name {
            fn expected() -> String {
                concat!("one of", $(" ", $text),*).replace(' ', ", ").replacen("one, of, ", "one of ", 1)
            }
            fn read(value: &Value) -> Option<$name> {
                // an unquoted `no` is a boolean to many YAML writers
                let text = match value {
                    Value::Bool(false) => "no".to_string(),
                    other => text(other)?.to_ascii_lowercase().replace('-', "_"),
                };
                match text.as_str() {
                    $($text $(| $other)* => Some($name::$variant),)*
                    _ => None,
                }
            }
            fn write(&self) -> Value {
                json!(self.as_str())
            }
        }
    };
}

choices! {
    /// When something happens in training.
    Strategy {
        /// Never.
        No = "no" | "none" | "false",
        /// Every so many steps.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
    }
}
choices! {
    /// What the model learns to do.
    TaskKind {
        /// Continue texts.
        CausalLm = "causal_lm",
        /// Choose one of several labels.
        Classification = "classification" | "seq_cls",
        /// Give a number.
        Regression = "regression",
    }
}
choices! {
    /// What is trained.
    FinetuningType {
        /// Adapters.
        Lora = "lora",
        /// Every weight.
        Full = "full",
    }
}
choices! {
    /// Course of the learning rate, with transformers' formulas.
    SchedulerType {
        /// Half a cosine down to 0.
        Cosine = "cosine",
        /// Straight down to 0.
        Linear = "linear",
        /// The same throughout, without warm-up.
        Constant = "constant",
        /// The same after warm-up.
        ConstantWithWarmup = "constant_with_warmup",
    }
}
choices! {
    /// Optimiser.
    OptimKind {
        /// AdamW (1711.05101).
        AdamW = "adamw" | "adamw_torch" | "adamw_torch_fused" | "adamw_hf",
        /// Stochastic gradient descent, with `momentum`.
        Sgd = "sgd",
    }
}
choices! {
    /// Form of the saved adapter.
    AdapterFormat {
        /// PEFT's meaning: loads onto the untouched base, rank 2r for Basis & Basis schemes.
        Plain = "plain",
        /// Rank r with the recipe of the start in `loram.json`.
        Native = "native",
    }
}
choices! {
    /// How the start of a Basis & Basis scheme is taken off the base.
    BaseMode {
        /// `residual` where weights are held in f32, else `branch`.
        Auto = "auto",
        /// `W − s·B₀A₀` in memory, in f32.
        Residual = "residual",
        /// W stays; `s·B₀(A₀x)` is subtracted in every pass.
        Branch = "branch",
    }
}
choices! {
    /// What to do when the memory estimate exceeds what is free.
    MemoryCheck {
        /// Stop before loading.
        Error = "error",
        /// Say so and go on.
        Warn = "warn",
        /// Do not look.
        Off = "off" | "no",
    }
}
choices! {
    /// Where a model runs.
    #[derive(Default)]
    DeviceKind {
        /// On an NVIDIA GPU where this build and the machine have one, else on the CPU.
        #[default]
        Auto = "auto",
        /// On the CPU, in f32.
        Cpu = "cpu",
        /// On an NVIDIA GPU, in bfloat16.
        Cuda = "cuda" | "gpu",
    }
}
choices! {
    /// Where metrics go beside `metrics.jsonl`.
    ReportTo {
        /// Event files for TensorBoard in the run folder.
        TensorBoard = "tensorboard" | "all",
        /// Nowhere.
        None = "none" | "no",
    }
}
