//! Where records come from: files of several kinds ([`mod@kinds`]), folders of the `datasets` library, data sets of the hub, generated
//! ones.

mod cells;
mod columnar;
pub mod demo;
mod file;
mod folder;
mod json;
mod kinds;
mod paths;
mod raw;
mod table;

pub use kinds::{DOCUMENT_END, has_known_ending};
pub use paths::{expand, fetch};
pub use raw::RawRecord;

use crate::Result;
use raw::Placed;
use std::path::Path;

/// The records of one file or generated source, each with its place, before anything is made of their fields.
///
/// # Errors
/// A file that is not there, of an unknown kind, or damaged; they name the file, and the line or record where there is one.
pub fn raw_records(path: &str) -> Result<Vec<Placed>> {
    if path.starts_with(demo::PREFIX) {
        return of_pairs(path);
    }
    let file = Path::new(path);
    if file.is_dir() {
        return Err(paths::folder(path));
    }
    if !file.exists() {
        return Err(paths::absent(path));
    }
    let read = kinds::reader(path).ok_or_else(|| paths::other_kind(path))?;
    read(path)
}

fn of_pairs(path: &str) -> Result<Vec<Placed>> {
    let pair = |(i, (prompt, completion)): (usize, (String, String))| {
        let value = serde_json::json!({"prompt": prompt, "completion": completion});
        (format!("{path}:{}", i + 1), RawRecord::Object(value))
    };
    Ok(demo::generate(path)?.into_iter().enumerate().map(pair).collect())
}
