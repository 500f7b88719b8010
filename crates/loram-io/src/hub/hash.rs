//! ETags of the hub: the SHA-256 of a large file, or the SHA-1 that git gives to a small one.

use crate::{Error, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The hash of a file, which is its name in the cache too: 64 or 40 hexadecimal digits and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Etag(String);

impl Etag {
    /// From a header, with or without quotes. `None` for anything that is no hash.
    pub fn parse(header: &str) -> Option<Etag> {
        let hex = header.trim().trim_start_matches("W/").trim_matches('"');
        let valid = matches!(hex.len(), 40 | 64) && hex.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| Etag(hex.to_ascii_lowercase()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the hash, for messages.
    pub fn kind(&self) -> &'static str {
        if self.0.len() == 64 { "SHA-256" } else { "SHA-1" }
    }

    /// The same hash of a file on this machine.
    pub fn of_file(&self, path: &Path) -> Result<Etag> {
        let io = |e| Error::io("read", path, e);
        let mut file = File::open(path).map_err(io)?;
        let hash = match self.0.len() {
            64 => hex(digest(&mut file, Sha256::new()).map_err(io)?),
            _ => {
                let length = file.metadata().map_err(io)?.len();
                hex(digest(&mut file, Sha1::new_with_prefix(format!("blob {length}\0"))).map_err(io)?)
            }
        };
        Ok(Etag(hash))
    }
}

fn digest<D: Digest>(file: &mut File, mut hash: D) -> std::io::Result<impl AsRef<[u8]> + use<D>> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hash.finalize()),
            n => hash.update(&buffer[..n]),
        }
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().fold(String::new(), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hashes_become_names() {
        let sha = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(Etag::parse(&format!("\"{sha}\"")).unwrap().as_str(), sha);
        assert_eq!(Etag::parse(&format!("W/\"{}\"", sha.to_uppercase())).unwrap().as_str(), sha);
        for bad in ["", "x", "../../../../../../../../etc/cron.d/a0123456", &sha[1..], &format!("{sha}0"), "\"\""] {
            assert_eq!(Etag::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn hashes_are_those_of_git_and_sha256sum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "hello\n").unwrap();
        // `git hash-object` and `sha256sum`
        for known in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            let etag = Etag::parse(known).unwrap();
            assert_eq!(etag.of_file(&path).unwrap(), etag);
        }
    }
}
