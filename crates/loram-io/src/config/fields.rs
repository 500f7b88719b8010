//! Typed access to the fields of a JSON object, with errors that name file and field.

use crate::limits::{MAX_LAYERS, MAX_SIDE};
use crate::{Error, Result, lfs};
use serde_json::{Map, Value};
use std::path::Path;

/// File name of the model configuration.
pub const CONFIG_FILE: &str = "config.json";

/// A JSON object and where it came from.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub map: &'a Map<String, Value>,
    pub path: &'a Path,
    /// `rope_parameters.` for a nested object.
    pub prefix: &'a str,
}

impl<'a> Fields<'a> {
    pub fn error(&self, field: &str, what: impl Into<String>) -> Error {
        Error::Config { path: self.path.to_path_buf(), field: format!("{}{field}", self.prefix), what: what.into() }
    }

    /// A field that is there and not null.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|v| !v.is_null())
    }

    pub fn opt_usize(&self, field: &str) -> Result<Option<usize>> {
        let Some(v) = self.get(field) else { return Ok(None) };
        // some configs write counts as 8.0
        let n =
            v.as_u64().or_else(|| v.as_f64().filter(|x| *x >= 0.0 && x.fract() == 0.0 && *x < 1e15).map(|x| x as u64));
        match n.and_then(|n| usize::try_from(n).ok()) {
            Some(n) => Ok(Some(n)),
            None => Err(self.error(field, format!("expected a whole number ≥ 0, found {v}"))),
        }
    }

    pub fn usize(&self, field: &str, default: usize) -> Result<usize> {
        Ok(self.opt_usize(field)?.unwrap_or(default))
    }

    /// A dimension of the model: must be there and at least 1.
    pub fn dim(&self, field: &str) -> Result<usize> {
        self.within(field, MAX_SIDE)
    }

    /// The number of blocks: must be there and at least 1.
    pub fn layers(&self, field: &str) -> Result<usize> {
        self.within(field, MAX_LAYERS)
    }

    /// A number from 1 to `most` that must be there.
    fn within(&self, field: &str, most: usize) -> Result<usize> {
        match self.opt_usize(field)? {
            Some(n) if (1..=most).contains(&n) => Ok(n),
            Some(0) => Err(self.error(field, "must be at least 1")),
            Some(n) => {
                Err(self.error(field, format!("{n} is more than any model has (at most {most}): a damaged file")))
            }
            None => Err(self.error(field, "is missing")),
        }
    }

    pub fn opt_f64(&self, field: &str) -> Result<Option<f64>> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => match v.as_f64() {
                Some(x) => Ok(Some(x)),
                None => Err(self.error(field, format!("expected a number, found {v}"))),
            },
        }
    }

    pub fn f64(&self, field: &str, default: f64) -> Result<f64> {
        Ok(self.opt_f64(field)?.unwrap_or(default))
    }

    pub fn bool(&self, field: &str, default: bool) -> Result<bool> {
        match self.get(field) {
            None => Ok(default),
            Some(v) => v.as_bool().ok_or_else(|| self.error(field, format!("expected true or false, found {v}"))),
        }
    }

    pub fn opt_str(&self, field: &str) -> Result<Option<&'a str>> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => match v.as_str() {
                Some(s) => Ok(Some(s)),
                None => Err(self.error(field, format!("expected a string, found {v}"))),
            },
        }
    }

    /// A token id; missing takes the default, null and negative mean none.
    pub fn token(&self, field: &str, default: Option<u32>) -> Result<Option<u32>> {
        match self.map.get(field) {
            None => Ok(default),
            Some(v) => match one_token(v) {
                Some(id) => Ok(id),
                None => Err(self.error(field, format!("expected a token id, found {v}"))),
            },
        }
    }

    /// One token id or a list of them.
    pub fn tokens(&self, field: &str, default: &[u32]) -> Result<Vec<u32>> {
        match self.map.get(field) {
            None => Ok(default.to_vec()),
            Some(Value::Array(list)) => {
                let ids: Option<Vec<_>> = list.iter().map(one_token).collect();
                let ids = ids.ok_or_else(|| self.error(field, "expected a list of token ids"))?;
                Ok(ids.into_iter().flatten().collect())
            }
            Some(_) => Ok(self.token(field, None)?.into_iter().collect()),
        }
    }

    /// A nested object under `field`.
    pub fn object(&self, field: &str) -> Result<Option<&'a Map<String, Value>>> {
        match self.get(field) {
            None => Ok(None),
            Some(v) => match v.as_object() {
                Some(m) => Ok(Some(m)),
                None => Err(self.error(field, format!("expected an object, found {v}"))),
            },
        }
    }
}

/// `Some(None)` for null and negative ids (old configs write −1 for "none"), `None` for anything else that is no id.
fn one_token(v: &Value) -> Option<Option<u32>> {
    if v.is_null() || v.as_i64().is_some_and(|i| i < 0) {
        return Some(None);
    }
    // as counts, some configs write ids as 2.0
    let whole = v.as_f64().filter(|x| x.fract() == 0.0 && (0.0..4e9).contains(x)).map(|x| x as u64);
    v.as_u64().or(whole).and_then(|i| u32::try_from(i).ok()).map(Some)
}

/// Reads a JSON file that holds an object.
pub(crate) fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let text = crate::input::read_text(path)?;
    if lfs::is_pointer(text.as_bytes()) {
        return Err(Error::json(path, lfs::POINTER));
    }
    match serde_json::from_str(text.trim_start_matches('\u{feff}')) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::json(path, "expected a JSON object")),
        Err(e) => Err(Error::json(path, format!("not valid JSON: {e}"))),
    }
}
