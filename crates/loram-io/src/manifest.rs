//! `manifest.json`: sizes and SHA-256 sums of the files of a folder, by which damage is found before they are used.

use crate::atomic;
use crate::checksum::sha256;
use crate::input::read_text_if_there;
use crate::inside::is_inside;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Name of the file.
pub const MANIFEST: &str = "manifest.json";

/// Text for people, which they may edit.
const NOT_LISTED: [&str; 2] = [MANIFEST, "README.md"];

/// The content of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this file's layout: 1.
    pub format: u32,
    /// Files by name, relative to the folder.
    pub files: BTreeMap<String, Listed>,
}

/// A file of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal digits.
    pub sha256: String,
}

/// The state of a folder's files by its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// All of them, so many, are as they were written.
    Whole(usize),
    /// There is no manifest: another program wrote the folder.
    Unlisted,
    /// The first file that is not as it was written, and what is wrong with it.
    Damaged(String),
}

impl Manifest {
    /// Reads the manifest of a folder; `None` if there is none. Errors: malformed, or a newer layout.
    pub fn read(dir: &Path) -> Result<Option<Manifest>> {
        let path = dir.join(MANIFEST);
        let Some(text) = read_text_if_there(&path)? else { return Ok(None) };
        let manifest: Manifest =
            serde_json::from_str(&text).map_err(|e| Error::json(&path, format!("damaged: {e}")))?;
        match manifest.format {
            1 => Ok(Some(manifest)),
            n => Err(Error::json(&path, format!("layout {n} is newer than this program, which reads 1: update it"))),
        }
    }

    /// Compares the files of the folder with the sums. The error names the first that differs.
    fn check(&self, dir: &Path) -> std::result::Result<(), String> {
        for (name, listed) in &self.files {
            if !is_inside(name) {
                return Err(format!("{MANIFEST} lists `{name}`, which is outside of the folder"));
            }
            let path = dir.join(name);
            let bytes = fs::metadata(&path).map_err(|e| format!("{name} cannot be read: {e}"))?.len();
            if bytes != listed.bytes {
                return Err(format!("{name} has {bytes} bytes, {} were written", listed.bytes));
            }
            if sha256(&path).map_err(|e| e.to_string())? != listed.sha256 {
                return Err(format!("{name} is not what was written (its SHA-256 sum differs from {MANIFEST})"));
            }
        }
        Ok(())
    }
}

/// Writes the manifest of all files that a folder has now, except `README.md`.
pub fn write(dir: &Path) -> Result<()> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("read", dir, e))?.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if NOT_LISTED.contains(&name.as_str()) || path.is_dir() {
            continue;
        }
        let bytes = fs::metadata(&path).map_err(|e| Error::io("read", &path, e))?.len();
        files.insert(name, Listed { bytes, sha256: sha256(&path)? });
    }
    atomic::write_json(dir.join(MANIFEST), &Manifest { format: 1, files })
}

/// Compares a folder with its manifest.
pub fn state(dir: &Path) -> State {
    match Manifest::read(dir) {
        Ok(None) => State::Unlisted,
        Ok(Some(manifest)) => match manifest.check(dir) {
            Ok(()) => State::Whole(manifest.files.len()),
            Err(what) => State::Damaged(what),
        },
        Err(e) => State::Damaged(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        fs::write(&path, b"0123456789").unwrap();
        fs::write(dir.path().join("README.md"), b"a card").unwrap();
        assert_eq!(state(dir.path()), State::Unlisted);
        write(dir.path()).unwrap();
        assert_eq!(state(dir.path()), State::Whole(1));
        fs::write(dir.path().join("README.md"), b"an edited card").unwrap();
        fs::write(dir.path().join("other"), b"a file that came later").unwrap();
        assert_eq!(state(dir.path()), State::Whole(1));
        for (bytes, word) in [(&b"0123456789x"[..], "11 bytes"), (b"0123456788", "SHA-256"), (b"", "0 bytes")] {
            fs::write(&path, bytes).unwrap();
            assert!(
                matches!(state(dir.path()), State::Damaged(what) if what.contains(word) && what.contains("weights"))
            );
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(state(dir.path()), State::Damaged(what) if what.contains("weights")));
        let outside = r#"{"format": 1, "files": {"../weights": {"bytes": 1, "sha256": ""}}}"#;
        fs::write(dir.path().join(MANIFEST), outside).unwrap();
        assert!(matches!(state(dir.path()), State::Damaged(what) if what.contains("outside of the folder")));
        fs::write(dir.path().join(MANIFEST), b"{\"format\": 1").unwrap();
        assert!(matches!(state(dir.path()), State::Damaged(what) if what.contains(MANIFEST)));
    }
}
