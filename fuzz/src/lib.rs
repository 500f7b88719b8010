//! Shared by the targets: folders that are filled from an input, and inputs of several parts.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The line between the parts of an input.
const BORDER: &str = "\n=====\n";

/// The parts of an input that is text; missing ones are empty.
pub fn parts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(data).ok()?;
    let mut parts = text.splitn(N, BORDER);
    Some(std::array::from_fn(|_| parts.next().unwrap_or_default()))
}

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> PathBuf {
    thread_local!(static FOLDER: OnceCell<TempDir> = const { OnceCell::new() });
    let make = || {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
        TempDir::with_prefix_in("loram-fuzz-", root).expect("a folder for temporary files")
    };
    FOLDER.with(|f| f.get_or_init(make).path().to_path_buf())
}

/// Writes a file of that folder, or removes it when the text is empty.
pub fn put(path: &Path, text: impl AsRef<[u8]>) {
    let text = text.as_ref();
    if text.is_empty() {
        let _ = std::fs::remove_file(path);
    } else {
        std::fs::write(path, text).expect("space for temporary files");
    }
}

/// The repository, whose small models some inputs are tried on.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
