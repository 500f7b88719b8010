//! Errors of a server.

/// An error of a server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Host and port.
        address: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// A model that does not generate texts, or a name that two models have.
    #[error("{0}")]
    Models(String),
    /// A chat template.
    #[error(transparent)]
    Train(#[from] loram_train::Error),
}

impl Error {
    /// 2 for wrong input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Listen { .. } => 1,
            Error::Models(_) => 2,
            Error::Train(e) => e.exit_code(),
        }
    }
}
