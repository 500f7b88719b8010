//! Errors of reading and writing files.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error about a file. Messages are one line: the file, what was found, what was expected, what to do.
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
        /// The system's error.
        cause: std::io::Error,
    },
    /// A path that the user gave does not exist or is not of the right kind.
    #[error("{path}: {what}", path = path.display())]
    NotFound {
        /// The path.
        path: PathBuf,
        /// The problem, and how to fix it.
        what: String,
    },
    /// Something has the name of a result that must not be replaced.
    #[error("{path} exists: give another output, or --overwrite to replace it", path = path.display())]
    Exists {
        /// The file, or folder that is not empty.
        path: PathBuf,
    },
    /// Another process works on the same folder.
    #[error("{path} is in use by {holder}: wait for it, or give another output_dir", path = path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
        /// The process that holds the lock.
        holder: crate::holder::Holder,
    },
    /// The file system has too little free space for a write.
    #[error("not enough disk space for {path}: {needed} needed, {free} free", path = path.display(), needed = human_bytes(*needed), free = human_bytes(*free))]
    NoSpace {
        /// The target of the write.
        path: PathBuf,
        /// Bytes that the write needs.
        needed: u64,
        /// Bytes that are free for this user.
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
        /// The rule that it breaks.
        problem: crate::checkpoint::HeaderProblem,
    },
    /// A GGUF file that breaks the format.
    #[error("{file}: {problem}", file = file.display())]
    Gguf {
        /// The GGUF file.
        file: PathBuf,
        /// The rule that it breaks.
        problem: Box<crate::gguf::GgufProblem>,
    },
    /// An index of shards that is malformed or does not fit the shards.
    #[error("{file}: {problem}", file = file.display())]
    Index {
        /// `model.safetensors.index.json`.
        file: PathBuf,
        /// The rule that it breaks.
        problem: crate::checkpoint::IndexProblem,
    },
    /// A folder that holds no weights that can be read.
    #[error("{path}: {what}", path = path.display())]
    Checkpoint {
        /// The folder.
        path: PathBuf,
        /// The problem, and how to fix it.
        what: String,
    },
    /// A tensor that the checkpoint does not have.
    #[error("{path}: no tensor named `{name}`{hint}", path = path.display())]
    NoTensor {
        /// The checkpoint folder.
        path: PathBuf,
        /// The name.
        name: String,
        /// Similar names, or empty.
        hint: String,
    },
    /// A tensor with the wrong shape, dtype or contents.
    #[error("tensor `{name}`: {what}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// The value found and the value expected.
        what: String,
    },
    /// A `config.json` field that is missing, malformed or asks for something that is not supported.
    #[error("{path}: field `{field}`: {what}", path = path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The field, with dots for nesting.
        field: String,
        /// The value found and the supported values.
        what: String,
    },
    /// An adapter folder that cannot be read, or asks for something that is not supported.
    #[error("{path}: {what}", path = path.display())]
    Adapter {
        /// The adapter folder or file.
        path: PathBuf,
        /// The problem, and how to fix it.
        what: String,
    },
    /// A model or data set that could not be found locally or fetched from the hub.
    #[error("{what}")]
    Hub {
        /// The attempts made, and how to fix it.
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
        /// The value found and the value expected.
        what: String,
    },
    /// Wrong use of an option or function.
    #[error("{0}")]
    Usage(String),
}

impl Error {
    /// Exit code of the program: 2 for invalid input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Io { .. } | Error::NoSpace { .. } => 1,
            Error::Core(e) => e.exit_code(),
            _ => 2,
        }
    }

    /// An [`Error::Io`] about `path`; a missing file, or a folder in place of one, becomes [`Error::NotFound`], which counts as
    /// wrong input.
    pub fn io(action: &'static str, path: impl AsRef<Path>, cause: std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        let what = match (action, cause.kind()) {
            ("read", ErrorKind::NotFound) => "no such file or folder",
            // a folder opens as a file does on some systems, and fails when it is read
            ("read", ErrorKind::IsADirectory) => "is a folder: expected a file",
            ("read", ErrorKind::NotADirectory) => "a part of this path is a file, not a folder",
            _ => return Error::Io { action, path, cause },
        };
        Error::NotFound { path, what: what.into() }
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
