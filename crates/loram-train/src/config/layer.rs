//! Where the values of a configuration come from: files, settings, flags.

use crate::{Error, Result};
use serde_json::{Map, Value};
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
}

impl Layer {
    /// The keys of a YAML file. Errors: the file cannot be read, is not YAML (with line), or is not a map.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Layer> {
        let path = path.as_ref();
        let text = loram_io::input::read_text(path)?;
        let values = parse_yaml(&text).map_err(|e| Error::Config(format!("{}: {e}", path.display())))?;
        Ok(Layer { origin: Origin::File(path.to_path_buf()), values })
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
        Ok(Layer { origin: Origin::Set, values })
    }

    /// Values of flags.
    pub fn from_flags(values: Map<String, Value>) -> Layer {
        Layer { origin: Origin::Flag, values }
    }

    /// A YAML text in a program.
    pub fn from_yaml(text: &str) -> Result<Layer> {
        Ok(Layer { origin: Origin::Code, values: parse_yaml(text).map_err(Error::Config)? })
    }
}

/// A YAML document that is a map with text keys; an empty document is an empty map.
fn parse_yaml(text: &str) -> std::result::Result<Map<String, Value>, String> {
    let only_comments = text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'));
    if only_comments {
        return Ok(Map::new());
    }
    // the first line of the error has message and position; the others draw the place
    let first_line = |e: serde_saphyr::Error| {
        let text = e.to_string();
        let line = text.lines().next().unwrap_or_default();
        line.strip_prefix("error: ").unwrap_or(line).to_string()
    };
    match serde_saphyr::from_str::<Value>(text).map_err(first_line)? {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err("expected a map of `key: value` lines".into()),
    }
}
