//! A GGUF file: opened, mapped, its header checked.

use super::header::{GgufHeader, List, MAGIC, Value, parse_gguf};
use crate::checkpoint::{Mapped, OpenFile};
use crate::{Error, Result, input};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Returns whether a path is a GGUF file: by its name, or by its first bytes, since Ollama names its files by their hash.
pub fn is_gguf(path: impl AsRef<Path>) -> bool {
    let path = path.as_ref();
    if !path.is_file() {
        return false;
    }
    let begins = || {
        let mut first = [0; 4];
        input::open(path).is_ok_and(|mut f| f.read_exact(&mut first).is_ok() && &first == MAGIC)
    };
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) || begins()
}

/// An open GGUF file.
#[derive(Debug, Clone)]
pub(crate) struct GgufFile {
    pub path: PathBuf,
    pub header: GgufHeader,
    pub map: Arc<Mapped>,
    pub file: Arc<OpenFile>,
}

impl GgufFile {
    /// Maps a file and checks its header. Errors name the file and the rule that it breaks.
    pub fn open(path: &Path) -> Result<GgufFile> {
        let file = input::open(path)?;
        if file.metadata().map_err(|e| Error::io("read", path, e))?.len() == 0 {
            return Err(Error::Checkpoint { path: path.into(), what: "is empty: not a GGUF file".into() });
        }
        let map = Mapped::open(&file, path)?;
        let header =
            parse_gguf(&map).map_err(|problem| Error::Gguf { file: path.into(), problem: Box::new(problem) })?;
        let file = Arc::new(OpenFile { path: path.into(), file });
        Ok(GgufFile { path: path.into(), header, map: Arc::new(map), file })
    }

    /// An error about an entry of the metadata.
    pub fn error(&self, key: &str, what: impl Into<String>) -> Error {
        Error::Config { path: self.path.clone(), field: key.into(), what: what.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.header.metadata.get(key)
    }

    /// The bytes of the header, with all metadata.
    pub fn head(&self) -> &[u8] {
        &self.map[..self.header.data_start.min(self.map.len())]
    }

    /// A whole number ≥ 0 in the metadata.
    pub fn whole(&self, key: &str) -> Result<Option<u64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Whole(n)) if u64::try_from(*n).is_ok() => Ok(Some(*n as u64)),
            Some(Value::List(_)) => Err(self.error(key, "differs between blocks, which is not supported")),
            Some(other) => Err(self.error(key, format!("expected a whole number ≥ 0, found {}", self.show(other)))),
        }
    }

    /// A number in the metadata.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Whole(n)) => Ok(Some(*n as f64)),
            Some(Value::Float(x)) => Ok(Some(*x)),
            Some(other) => Err(self.error(key, format!("expected a number, found {}", self.show(other)))),
        }
    }

    /// A truth value in the metadata.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.error(key, format!("expected true or false, found {}", self.show(other)))),
        }
    }

    /// A text in the metadata.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Text(at)) => Ok(std::str::from_utf8(&self.map[at.clone()]).ok()),
            Some(other) => Err(self.error(key, format!("expected a text, found {}", self.show(other)))),
        }
    }

    fn list(&self, key: &str) -> Result<Option<&List>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::List(list)) => Ok(Some(list)),
            Some(other) => Err(self.error(key, format!("expected a list, found {}", self.show(other)))),
        }
    }

    /// A list of texts in the metadata.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        list.texts(&self.map).map(Some).ok_or_else(|| self.error(key, "expected a list of texts"))
    }

    /// A list of numbers in the metadata.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        let Some(list) = self.list(key)? else { return Ok(None) };
        let number = |v: Value| match v {
            Value::Whole(n) => Some(n as f64),
            Value::Float(x) => Some(x),
            _ => None,
        };
        let all = list.values(&self.map).and_then(|values| values.into_iter().map(number).collect());
        all.map(Some).ok_or_else(|| self.error(key, "expected a list of numbers"))
    }

    /// A value in an error: short, also where it is a long text.
    fn show(&self, value: &Value) -> String {
        match value {
            Value::Whole(n) => n.to_string(),
            Value::Float(x) => x.to_string(),
            Value::Bool(b) => b.to_string(),
            Value::Text(at) => {
                let text = String::from_utf8_lossy(&self.map[at.clone()]).chars().take(60).collect::<String>();
                format!("{text:?}")
            }
            Value::List(list) => format!("a list of {}", list.count()),
        }
    }
}
