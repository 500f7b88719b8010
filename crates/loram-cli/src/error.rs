//! Errors of the program: those of the crates, and invalid arguments.

/// An error that ends a command.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Configuration, training, evaluation, generation.
    #[error(transparent)]
    Train(#[from] loram_train::Error),
    /// Files.
    #[error(transparent)]
    Io(#[from] loram_io::Error),
    /// Settings of adapters.
    #[error(transparent)]
    Core(#[from] loram_core::Error),
    /// Models.
    #[error(transparent)]
    Model(#[from] loram_nn::Error),
    /// Many runs: grids and reports.
    #[error(transparent)]
    Lab(#[from] loram_lab::Error),
    /// The server.
    #[error(transparent)]
    Serve(#[from] loram_serve::Error),
    /// Invalid arguments.
    #[error("{0}")]
    Usage(String),
    /// Another failure while running.
    #[error("{0}")]
    Failed(String),
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// 2 for wrong usage or input, 1 for a failure while running.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Train(e) => e.exit_code(),
            Error::Io(e) => e.exit_code(),
            Error::Core(e) => e.exit_code(),
            Error::Model(e) => e.exit_code(),
            Error::Lab(e) => e.exit_code(),
            Error::Serve(e) => e.exit_code(),
            Error::Usage(_) => 2,
            Error::Failed(_) => 1,
        }
    }
}
