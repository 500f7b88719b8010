//! Every way in which reading or writing files can fail, each with its own name.

use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong with a file. Messages are one line: the file, what was found, what was expected, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {path}: {cause}", path = path.display())]
    Io {
        /// A verb: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
    /// A path that the user gave does not exist or is not of the right kind.
    #[error("{path}: {what}", path = path.display())]
    NotFound {
        /// What was asked for.
        path: PathBuf,
        /// What is wrong with it and what to do.
        what: String,
    },
    /// The file system has too little room for what is about to be written.
    #[error("not enough disk space for {path}: {needed} needed, {free} free", path = path.display(), needed = human_bytes(*needed), free = human_bytes(*free))]
    NoSpace {
        /// Where the files were to be written.
        path: PathBuf,
        /// Bytes that the write needs.
        needed: u64,
        /// Bytes that the file system has for this user.
        free: u64,
    },
    /// A JSON file that is not JSON, or not of the expected shape.
    #[error("{path}: {what}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        what: String,
    },
    /// A safetensors file that breaks the format.
    #[error("{file}: {problem}", file = file.display())]
    Header {
        /// The safetensors file.
        file: PathBuf,
        /// Which rule it breaks.
        problem: crate::checkpoint::HeaderProblem,
    },
    /// An index of shards that is malformed or does not fit the shards.
    #[error("{file}: {problem}", file = file.display())]
    Index {
        /// `model.safetensors.index.json`.
        file: PathBuf,
        /// Which rule it breaks.
        problem: crate::checkpoint::IndexProblem,
    },
    /// A folder that holds no weights that can be read.
    #[error("{path}: {what}", path = path.display())]
    Checkpoint {
        /// The folder.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A tensor that is asked for and not there.
    #[error("{path}: no tensor named `{name}`{hint}", path = path.display())]
    NoTensor {
        /// The checkpoint folder.
        path: PathBuf,
        /// The name.
        name: String,
        /// Near names, or empty.
        hint: String,
    },
    /// A tensor with the wrong shape, dtype or contents.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What was found and what was expected.
        what: String,
    },
    /// A `config.json` field that is missing, malformed or asks for something that is not supported.
    #[error("{path}: field `{field}`: {what}", path = path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// What was found and what is supported.
        what: String,
    },
    /// An adapter folder that cannot be read, or asks for something that is not supported.
    #[error("{path}: {what}", path = path.display())]
    Adapter {
        /// The adapter folder or file.
        path: PathBuf,
        /// What is wrong and what to do.
        what: String,
    },
    /// A model or data set that could not be found locally or fetched from the hub.
    #[error("{what}")]
    Hub {
        /// What was tried and what to do.
        what: String,
    },
    /// An error of the mathematics crate.
    #[error(transparent)]
    Core(#[from] loram_core::Error),
    /// A record that cannot be read or used.
    #[error("{at}: {what}")]
    Data {
        /// File and line.
        at: String,
        /// What was found and what was expected.
        what: String,
    },
    /// Wrong use of an option or function.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Exit code for a program: 2 when the user's input is wrong, 1 when the work failed while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Io { .. } | Error::NoSpace { .. } => 1,
            Error::Core(e) => e.exit_code(),
            _ => 2,
        }
    }

    /// An [`Error::Io`] about `path`; a missing file becomes [`Error::NotFound`], which counts as wrong input.
    pub fn io(action: &'static str, path: impl AsRef<Path>, cause: std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        if action == "read" && cause.kind() == std::io::ErrorKind::NotFound {
            return Error::NotFound { path, what: "no such file or folder".into() };
        }
        Error::Io { action, path, cause }
    }

    pub(crate) fn json(path: impl AsRef<Path>, what: impl ToString) -> Error {
        Error::Json { path: path.as_ref().to_path_buf(), what: what.to_string() }
    }
}

/// Bytes in the unit that fits: `812 B`, `3.4 MB`, `13.5 GB` (powers of ten, as disks are sold).
pub fn human_bytes(bytes: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut x = bytes as f64;
    let mut u = 0;
    while x >= 1000.0 && u + 1 < units.len() {
        x /= 1000.0;
        u += 1;
    }
    if u == 0 { format!("{bytes} B") } else { format!("{x:.1} {}", units[u]) }
}
