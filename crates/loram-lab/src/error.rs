//! Errors of this crate.

use std::path::{Path, PathBuf};

/// An error of a comparison or a report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A grid file that is not valid.
    #[error("{path}: {what}", path = path.display())]
    Grid {
        /// The file.
        path: PathBuf,
        /// Key, found, expected.
        what: String,
    },
    /// A run folder or a file in it that is not valid.
    #[error("{path}: {what}", path = path.display())]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Found and expected.
        what: String,
    },
    /// Wrong arguments or input.
    #[error("{0}")]
    Usage(String),
    /// A failure at run time.
    #[error("{0}")]
    Failed(String),
    /// A training run, its configuration or its data.
    #[error(transparent)]
    Train(#[from] loram_train::Error),
    /// A file.
    #[error(transparent)]
    Io(#[from] loram_io::Error),
    /// A model.
    #[error(transparent)]
    Model(#[from] loram_nn::Error),
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code: 2 for wrong input, 1 for a failure at run time.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Grid { .. } | Error::Folder { .. } | Error::Usage(_) => 2,
            Error::Failed(_) => 1,
            Error::Train(e) => e.exit_code(),
            Error::Io(e) => e.exit_code(),
            Error::Model(e) => e.exit_code(),
        }
    }

    pub(crate) fn folder(path: &Path, what: impl Into<String>) -> Error {
        Error::Folder { path: path.to_path_buf(), what: what.into() }
    }
}
