//! Errors of this crate.

use loram_io::error::human_bytes;
use std::path::PathBuf;

/// An error of a training run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An invalid configuration key, or keys that contradict each other.
    #[error("{0}")]
    Config(String),
    /// A file.
    #[error(transparent)]
    Io(#[from] loram_io::Error),
    /// The adapter's settings.
    #[error(transparent)]
    Core(#[from] loram_core::Error),
    /// The model.
    #[error(transparent)]
    Model(#[from] loram_nn::Error),
    /// Data that do not fit the model or the task.
    #[error("{0}")]
    Data(String),
    /// The output folder is in use.
    #[error(
        "{path} exists and is not empty: give another output_dir, resume the run with --resume, or set \
         overwrite_output_dir: true",
        path = path.display()
    )]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A checkpoint that cannot be resumed.
    #[error("{path}: {what}", path = path.display())]
    Checkpoint {
        /// The checkpoint folder.
        path: PathBuf,
        /// The value found and the value expected.
        what: String,
    },
    /// The loss or a gradient is not finite.
    #[error("step {step}: the {what} is {value} (learning rate {lr:e}); {hint}. Nothing was overwritten: {last}")]
    NotFinite {
        /// Step in which it happened.
        step: usize,
        /// "loss" or "gradient of …".
        what: String,
        /// The value.
        value: f64,
        /// Learning rate of the step.
        lr: f64,
        /// The likely cause.
        hint: String,
        /// The last checkpoint.
        last: String,
    },
    /// No further step can save the run.
    #[error("step {step}: {what} (learning rate {lr:e}): lower learning_rate or raise warmup_ratio; {last}")]
    Lost {
        /// Step at which that was certain.
        step: usize,
        /// The observations.
        what: String,
        /// Learning rate of the step.
        lr: f64,
        /// The last checkpoint from before.
        last: String,
    },
    /// An error of one rank of a run of several processes, which all of them return.
    #[error("{what}")]
    Rank {
        /// The error, with the rank and its machine unless all ranks have it.
        what: String,
        /// Its exit code.
        code: i32,
        /// True where the run diverged ([`Error::is_divergence`]).
        diverged: bool,
        /// True where another rank shows it.
        told: bool,
    },
    /// A rank whose process has ended, or whose machine cannot be reached.
    #[error("{name} was lost {when}: its process was killed or its machine cannot be reached. {last}")]
    RankLost {
        /// The rank and its machine.
        name: String,
        /// The step.
        when: String,
        /// The last checkpoint.
        last: String,
        /// True where another rank shows it.
        told: bool,
    },
    /// The estimate exceeds the free memory.
    #[error(
        "not enough memory: this run needs about {needed}, {free} are free; {hint} (memory_check: warn runs it anyway)",
        needed = human_bytes(*needed), free = human_bytes(*free)
    )]
    Memory {
        /// Estimated bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
        /// The most effective remedy.
        hint: String,
    },
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Exit code of the program: 2 for invalid input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Io(e) => e.exit_code(),
            Error::Core(e) => e.exit_code(),
            Error::Model(e) => e.exit_code(),
            Error::Rank { code, .. } => *code,
            Error::NotFinite { .. } | Error::Lost { .. } | Error::RankLost { .. } => 1,
            Error::Memory { .. }
            | Error::Config(_)
            | Error::Data(_)
            | Error::OutputExists { .. }
            | Error::Checkpoint { .. } => 2,
        }
    }

    /// True for a run that no further step could save.
    pub fn is_divergence(&self) -> bool {
        matches!(self, Error::NotFinite { .. } | Error::Lost { .. } | Error::Rank { diverged: true, .. })
    }

    /// True for an error of a run of several processes that another of them shows.
    pub fn is_told_elsewhere(&self) -> bool {
        matches!(self, Error::Rank { told: true, .. } | Error::RankLost { told: true, .. })
    }
}
