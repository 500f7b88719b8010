//! The text of a data file, unpacked where it is packed.

use crate::error::human_bytes;
use crate::limits::{MAX_DATA, MAX_UNPACKED_RATIO, UNPACKED_ALWAYS};
use crate::{Error, Result, input, lfs};
use std::io::Read;
use std::path::Path;

/// Reads a file, `.gz` or not, without its byte order mark. Errors: those of [`input::read`]; a packed file that is
/// damaged or unpacks to more than text does; text that is not UTF-8, with its line.
pub(super) fn read_text(path: &Path) -> Result<String> {
    let bytes = input::read(path, MAX_DATA)?;
    if lfs::is_pointer(&bytes) {
        return Err(Error::Data { at: path.display().to_string(), what: lfs::POINTER.into() });
    }
    let bytes = if path.extension().is_some_and(|e| e == "gz") { unpack(path, &bytes)? } else { bytes };
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let line = e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count() + 1;
        Error::Data { at: format!("{}:{line}", path.display()), what: "not UTF-8 text".into() }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

fn unpack(path: &Path, packed: &[u8]) -> Result<Vec<u8>> {
    let limit = UNPACKED_ALWAYS.max(MAX_UNPACKED_RATIO * packed.len() as u64);
    let mut out = Vec::new();
    let error = |what: String| Err(Error::Data { at: path.display().to_string(), what });
    match flate2::read::MultiGzDecoder::new(packed).take(limit + 1).read_to_end(&mut out) {
        Err(e) => error(format!("cannot be unpacked: {e}: make the file again")),
        Ok(n) if n as u64 > limit => error(format!(
            "{} of packed data unpack to more than {}, as no text does: unpack the file first if that is right",
            human_bytes(packed.len() as u64),
            human_bytes(limit)
        )),
        Ok(_) => Ok(out),
    }
}
