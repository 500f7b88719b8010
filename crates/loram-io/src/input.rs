//! Files that users name, and files in folders from elsewhere: opened and read in one way.
//!
//! Pipes and devices are refused, since reading one may wait for ever or never end, and a file that is read as a whole has a
//! largest size.

use crate::error::human_bytes;
use crate::limits::MAX_TEXT;
use crate::{Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Opens a file for reading.
///
/// # Errors
/// There is no such file; it is a folder, a pipe, a socket or a device.
pub fn open(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let io = |e| Error::io("read", path, e);
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    // opening a pipe would wait for a writer; files of a file system do not know the flag
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let file = options.open(path).map_err(io)?;
    let found = file.metadata().map_err(io)?;
    match found.is_file() {
        true => Ok(file),
        false => Err(refused(path, kind(&found.file_type()))),
    }
}

/// Reads a whole file of at most `limit` bytes. Errors: those of [`open`]; a longer file.
pub fn read(path: impl AsRef<Path>, limit: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let file = open(path)?;
    let io = |e| Error::io("read", path, e);
    let length = file.metadata().map_err(io)?.len();
    let too_long = || {
        let what = format!("is longer than {}, the limit of such a file", human_bytes(limit));
        Err(Error::NotFound { path: path.into(), what })
    };
    if length > limit {
        return too_long();
    }
    let mut out = Vec::new();
    out.try_reserve_exact(length as usize).map_err(|e| io(std::io::Error::new(std::io::ErrorKind::OutOfMemory, e)))?;
    // it may grow meanwhile
    file.take(limit + 1).read_to_end(&mut out).map_err(io)?;
    if out.len() as u64 > limit { too_long() } else { Ok(out) }
}

/// Reads a text of at most [`MAX_TEXT`] bytes. Errors: those of [`read`]; text that is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read(path, MAX_TEXT)?).map_err(|e| {
        let line = 1 + e.as_bytes()[..e.utf8_error().valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        Error::NotFound { path: path.into(), what: format!("line {line} is not UTF-8 text") }
    })
}

/// [`read_text`], with `None` for a file that is not there.
pub fn read_text_if_there(path: impl AsRef<Path>) -> Result<Option<String>> {
    match path.as_ref().exists() {
        true => read_text(path).map(Some),
        false => Ok(None),
    }
}

fn refused(path: &Path, kind: &str) -> Error {
    Error::NotFound { path: path.into(), what: format!("is {kind}; expected a file") }
}

fn kind(found: &std::fs::FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if found.is_fifo() {
            return "a pipe";
        }
        if found.is_socket() {
            return "a socket";
        }
        if found.is_char_device() || found.is_block_device() {
            return "a device";
        }
    }
    if found.is_dir() { "a folder" } else { "of no known kind" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "text").unwrap();
        assert_eq!(read_text(&path).unwrap(), "text");
        assert!(read(&path, 3).unwrap_err().to_string().contains("longer than 3 B"));
        std::fs::write(&path, b"one\ntwo\xff").unwrap();
        assert!(read_text(&path).unwrap_err().to_string().contains("line 2 is not UTF-8"));
        assert!(open(dir.path()).unwrap_err().to_string().contains("is a folder; expected a file"));
        let e = open(dir.path().join("none")).unwrap_err();
        assert!(e.to_string().contains("no such file") && e.exit_code() == 2);
        assert_eq!(read_text_if_there(dir.path().join("none")).unwrap(), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let (pipe, link) = (dir.path().join("pipe"), dir.path().join("link"));
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        for (path, what) in [(pipe.as_path(), "a pipe"), (&link, "a device"), (Path::new("/dev/zero"), "a device")] {
            let e = open(path).unwrap_err();
            assert!(e.to_string().contains(what) && e.exit_code() == 2, "{e}");
        }
    }
}
