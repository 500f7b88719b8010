//! JSON Lines.

use super::format::Format;
use crate::atomic::AtomicFile;
use crate::{Error, Result};
use serde_json::{Map, Value};

/// Writes each row at once.
pub(super) struct JsonLines;

impl Format for JsonLines {
    fn row(&mut self, row: Map<String, Value>, file: &mut AtomicFile) -> Result<()> {
        let mut line = serde_json::to_vec(&row).map_err(|e| Error::json(file.path(), e))?;
        line.push(b'\n');
        file.put(&line)
    }

    fn finish(self: Box<Self>, _: &mut AtomicFile) -> Result<()> {
        Ok(())
    }
}
