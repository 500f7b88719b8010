//! Where the values of a configuration come from: files, settings, flags.

use super::yaml_file::{self, Document};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A configuration file.
    File(PathBuf),
    /// `--set key=value`.
    Set,
    /// `--rewrite`, which turned a setting into an equal one.
    Rewrite,
    /// The flag of the key.
    Flag,
    /// A program that uses the library.
    Code,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Set => f.write_str("--set"),
            Origin::Rewrite => f.write_str("--rewrite"),
            Origin::Flag => f.write_str("flag"),
            Origin::Code => f.write_str("program"),
        }
    }
}

/// Values from one source; later layers override earlier ones.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The source.
    pub origin: Origin,
    /// Values by key or alias.
    pub values: Map<String, Value>,
    /// Lines of the keys of a file, for messages.
    pub lines: BTreeMap<String, usize>,
}

impl Layer {
    /// The keys of a YAML file. Errors: the file cannot be read, is not YAML (with line), or is not a map.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Layer> {
        let path = path.as_ref();
        let text = loram_io::input::read_text(path)?;
        let document = yaml_file::parse(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        Ok(Layer { lines: document.lines, ..Layer::new(Origin::File(path.to_path_buf()), document.values) })
    }

    /// Settings of the form `key=value`; the value is read as YAML.
    pub fn from_settings<S: AsRef<str>>(settings: &[S]) -> Result<Layer> {
        let mut values = Map::new();
        for s in settings.iter().map(AsRef::as_ref) {
            let Some((key, value)) = s.split_once('=') else {
                return Err(Error::Config(format!("--set {s}: expected key=value")));
            };
            // a text that is not YAML by itself, such as `*_proj`, is taken literally
            let value = serde_saphyr::from_str(value).unwrap_or_else(|_| Value::String(value.to_string()));
            values.insert(key.trim().to_string(), value);
        }
        Ok(Layer::new(Origin::Set, values))
    }

    /// Values of flags.
    pub fn from_flags(values: Map<String, Value>) -> Layer {
        Layer::new(Origin::Flag, values)
    }

    /// A YAML text in a program.
    pub fn from_yaml(text: &str) -> Result<Layer> {
        let Document { values, lines } = yaml_file::parse(text).map_err(Error::Config)?;
        Ok(Layer { lines, ..Layer::new(Origin::Code, values) })
    }

    /// Values without lines.
    pub fn new(origin: Origin, values: Map<String, Value>) -> Layer {
        Layer { origin, values, lines: BTreeMap::new() }
    }

    /// The source of a key's value with its line: `run.yaml:3`.
    pub(super) fn place(&self, name: &str) -> String {
        match (self.lines.get(name), &self.origin) {
            (Some(line), Origin::File(_)) => format!("{}:{line}", self.origin),
            _ => self.origin.to_string(),
        }
    }
}
