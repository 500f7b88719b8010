//! Keys that take one of a few names.

use super::key_type::{KeyType, text};
use crate::objective::Divergence;
use loram_io::config::PoolingMode;
use serde_json::{Value, json};

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
            const PLACEHOLDER: &'static str = "CHOICE";
            fn expected() -> String {
                concat!("one of", $(" ", $text),*).replace(' ', ", ").replacen("one, of, ", "one of ", 1)
            }
            fn schema() -> Value {
                json!({ "enum": [$($text $(, $other)*),*] })
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

impl KeyType for PoolingMode {
    const PLACEHOLDER: &'static str = "CHOICE";
    fn expected() -> String {
        "one of cls, mean, last".into()
    }
    fn schema() -> Value {
        json!({ "enum": ["cls", "mean", "last"] })
    }
    fn read(value: &Value) -> Option<PoolingMode> {
        let name = text(value)?.to_ascii_lowercase();
        [PoolingMode::Cls, PoolingMode::Mean, PoolingMode::Last].into_iter().find(|mode| mode.as_str() == name)
    }
    fn write(&self) -> Value {
        json!(self.as_str())
    }
}

impl KeyType for Divergence {
    const PLACEHOLDER: &'static str = "CHOICE";
    fn expected() -> String {
        format!("one of {}", Divergence::ALL.map(Divergence::as_str).join(", "))
    }
    fn schema() -> Value {
        json!({ "enum": Divergence::ALL.map(Divergence::as_str) })
    }
    fn read(value: &Value) -> Option<Divergence> {
        let name = text(value)?.to_ascii_lowercase().replace('-', "_");
        Divergence::ALL.into_iter().find(|d| d.as_str() == name)
    }
    fn write(&self) -> Value {
        json!(self.as_str())
    }
}

choices! {
    /// When something happens in training.
    Strategy {
        /// Never.
        No = "no" | "none" | "false",
        /// Every given number of steps.
        Steps = "steps",
        /// At the end of each epoch.
        Epoch = "epoch",
    }
}
choices! {
    /// The parameters that are trained.
    FinetuningType {
        /// Adapters.
        Lora = "lora",
        /// Every weight.
        Full = "full",
    }
}
choices! {
    /// Schedule of the learning rate, with the formulas of transformers.
    SchedulerType {
        /// Cosine decay to 0 over half a period.
        Cosine = "cosine",
        /// Linear decay to 0.
        Linear = "linear",
        /// Constant, without warm-up.
        Constant = "constant",
        /// Constant after warm-up.
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
        /// As PEFT reads it: it loads onto the original base model. Rank 2r for schemes that change the base.
        Plain = "plain",
        /// Rank r, with the recipe of the initialisation in `loram.json`.
        Native = "native",
    }
}
choices! {
    /// How the initial product s·B₀A₀ is subtracted from the base, for schemes where it is not 0.
    BaseMode {
        /// `residual` where weights are held in f32, else `branch`.
        Auto = "auto",
        /// `W − s·B₀A₀` in memory, in f32.
        Residual = "residual",
        /// W is unchanged, and `s·B₀(A₀x)` is subtracted in every pass.
        Branch = "branch",
    }
}
choices! {
    /// 4-bit type of weights that are quantised while they are read.
    FourBitKind {
        /// Quantiles of the normal distribution.
        Nf4 = "nf4",
        /// Floating-point numbers.
        Fp4 = "fp4",
    }
}
choices! {
    /// The number type in which gradients travel between the processes of a run.
    DistDtype {
        /// Single precision.
        Float32 = "float32" | "fp32",
        /// bfloat16, with sums in more.
        Bfloat16 = "bfloat16" | "bf16",
    }
}
choices! {
    /// Reaction to a memory estimate that exceeds the free memory.
    MemoryCheck {
        /// Stop with an error before anything is loaded.
        Error = "error",
        /// Warn and continue.
        Warn = "warn",
        /// Do not check.
        Off = "off" | "no",
    }
}
choices! {
    /// The device that a model runs on.
    #[derive(Default)]
    DeviceKind {
        /// An NVIDIA GPU if this build supports it and the machine has one, else the CPU.
        #[default]
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU, in bfloat16.
        Cuda = "cuda" | "gpu",
    }
}
choices! {
    /// The number type of products of activations with frozen weights.
    #[derive(Default)]
    ComputeDtype {
        /// bfloat16 where that is faster and the weights are stored in it, else float32.
        #[default]
        Auto = "auto",
        /// Single precision.
        Float32 = "float32" | "fp32" | "f32",
        /// bfloat16 with sums in single precision.
        Bfloat16 = "bfloat16" | "bf16",
    }
}
