//! Errors of this crate.

/// An error about a configuration or a layer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A setting that cannot be.
    #[error("{key}: {what}")]
    Setting {
        /// Name of the setting.
        key: String,
        /// Found and expected.
        what: String,
    },
    /// A layer that cannot take the adapter.
    #[error("layer `{path}`: {what}")]
    Layer {
        /// Module path.
        path: String,
        /// Found and expected.
        what: String,
    },
    /// `target_modules` matched nothing.
    #[error("target_modules: {asked} matches no linear layer; the model has {available}")]
    NoTarget {
        /// The setting.
        asked: String,
        /// Distinct names of linear layers.
        available: String,
    },
}

impl Error {
    pub(crate) fn setting(key: &str, what: impl Into<String>) -> Error {
        Error::Setting { key: key.into(), what: what.into() }
    }

    pub(crate) fn layer(path: &str, what: impl Into<String>) -> Error {
        Error::Layer { path: path.into(), what: what.into() }
    }

    /// 2: every error here is wrong input.
    pub fn exit_code(&self) -> i32 {
        2
    }
}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;
