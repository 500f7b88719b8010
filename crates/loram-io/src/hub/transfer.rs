//! One file from the hub into the cache: continued where it broke off, checked, and only then under its name.

use super::client::{Client, Failure, FileInfo, Result, TRIES, header, pause};
use super::options::Download;
use crate::Error;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::StatusCode;

/// A file of a model at a commit.
pub(super) struct Source<'a> {
    pub client: &'a Client<'a>,
    pub commit: &'a str,
    pub file: &'a str,
    pub info: &'a FileInfo,
}

impl Source<'_> {
    /// Makes sure that the file is at `blob`. `lock` is held meanwhile: a second process waits and finds it there.
    pub fn fetch(&self, blob: &Path, lock: &Path, report: &mut dyn FnMut(&Download<'_>)) -> Result<()> {
        if self.is_complete(blob) {
            return Ok(());
        }
        let _held = hold(lock, self.file)?;
        if self.is_complete(blob) {
            return Ok(());
        }
        let part = blob.with_extension("incomplete");
        // how the Rust library of the hub names it
        let other = blob.with_extension("part");
        if !part.exists() && other.exists() {
            std::fs::rename(&other, &part).map_err(|e| Error::io("write", &part, e))?;
        }
        let io = |e| Error::io("write", &part, e);
        let mut out = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&part).map_err(io)?;
        let mut begun = out.metadata().map_err(io)?.len();
        if begun > self.info.size {
            begun = 0;
        }
        loop {
            self.complete(&mut out, &part, begun, report)?;
            out.sync_all().map_err(io)?;
            let found = self.info.etag.of_file(&part)?;
            if found == self.info.etag {
                std::fs::rename(&part, blob).map_err(|e| Error::io("write", blob, e))?;
                return Ok(());
            }
            if begun == 0 {
                let _ = std::fs::remove_file(&part);
                let (kind, found, etag) = (found.kind(), found.as_str(), self.info.etag.as_str());
                return Err(self.client.refuse(format!(
                    "`{}` arrived damaged: its {kind} is {found}, expected {etag}; run the command again",
                    self.file
                )));
            }
            // what was there before belonged to something else
            begun = 0;
        }
    }

    fn is_complete(&self, blob: &Path) -> bool {
        std::fs::metadata(blob).is_ok_and(|m| m.is_file() && m.len() == self.info.size)
    }

    /// Downloads from byte `have` to the end, in as many requests as it takes.
    fn complete(
        &self,
        out: &mut File,
        part: &Path,
        mut have: u64,
        report: &mut dyn FnMut(&Download<'_>),
    ) -> Result<()> {
        let mut tries = 1;
        let mut show = |done| report(&Download { file: self.file, done, total: self.info.size });
        out.set_len(have).map_err(|e| Error::io("write", part, e))?;
        show(have);
        while have < self.info.size {
            let before = have;
            let why = match self.receive(out, part, &mut have, &mut show) {
                Ok(()) => format!("`{}` ended after {have} of {} bytes", self.file, self.info.size),
                Err(Failure::Unreachable { why, again: true }) => why,
                Err(e) => return Err(e),
            };
            if have > before {
                tries = 1;
            } else if tries == TRIES {
                return Err(Failure::Unreachable { why, again: false });
            } else {
                pause(tries);
                tries += 1;
            }
        }
        Ok(())
    }

    /// One request, from byte `have` on.
    fn receive(&self, out: &mut File, part: &Path, have: &mut u64, show: &mut dyn FnMut(u64)) -> Result<()> {
        let io = |e| Failure::from(Error::io("write", part, e));
        let mut reply = self.client.get(self.commit, self.file, *have)?;
        let start = header(&reply, "content-range")
            .and_then(|r| r.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        if reply.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            *have = 0;
            return out.set_len(0).map_err(io);
        }
        if reply.status() != StatusCode::PARTIAL_CONTENT || start != Some(*have) {
            if reply.status() == StatusCode::PARTIAL_CONTENT && start != Some(0) {
                return Err(self.client.refuse(format!("`{}` does not continue at byte {have}", self.file)));
            }
            // all of it instead of the rest
            *have = 0;
            out.set_len(0).map_err(io)?;
        }
        out.seek(SeekFrom::Start(*have)).map_err(io)?;
        let mut body = reply.body_mut().as_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) => return Err(Failure::Unreachable { why: format!("`{}`: {e}", self.file), again: true }),
            };
            if *have + n as u64 > self.info.size {
                let _ = out.set_len(0);
                return Err(self.client.refuse(format!("`{}` is longer than {} bytes", self.file, self.info.size)));
            }
            out.write_all(&buffer[..n]).map_err(io)?;
            *have += n as u64;
            show(*have);
        }
    }
}

/// Waits for a lock of the operating system, as huggingface_hub and other processes of this program take it.
fn hold(path: &Path, file: &str) -> Result<File> {
    let io = |e| Error::io("create", path, e);
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(io)?;
    let mut told = false;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::Error(e)) => return Err(io(e).into()),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    tracing::warn!("{file}: waiting for another process that downloads it");
                    told = true;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}
