//! Locks of the operating system on files, which end with the process that holds them and name it.

pub use crate::holder::{Holder, host_name};

use crate::disk;
use crate::fault;
use crate::{Error, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

/// A lock that this process holds. Dropped, it removes its file.
#[derive(Debug)]
pub struct FileLock {
    path: PathBuf,
    _file: File,
}

/// The outcome of an attempt to lock.
#[derive(Debug)]
pub enum Attempt {
    /// The lock is ours.
    Taken(FileLock),
    /// Another process has it.
    Busy(Holder),
}

impl FileLock {
    /// Tries to take the lock. A file that a dead process left is no obstacle. On a file system without locks everybody gets
    /// it. Errors: the file cannot be created or locked.
    pub fn take(path: &Path) -> Result<Attempt> {
        loop {
            let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
            let mut file = fault::point().and_then(|()| open()).map_err(|e| Error::io("create", path, e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(Attempt::Busy(Holder::read(path))),
                Err(TryLockError::Error(e)) if has_no_locks(&e) => {}
                Err(TryLockError::Error(e)) => return Err(Error::io("lock", path, e)),
            }
            // the last holder may have removed the file before we had its lock
            if !is_at(&file, path) {
                continue;
            }
            let text = serde_json::to_string(&Holder::this_process()).map_err(|e| Error::json(path, e))?;
            let write = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{text}"));
            write.map_err(|e| Error::io("write", path, e))?;
            return Ok(Attempt::Taken(FileLock { path: path.to_path_buf(), _file: file }));
        }
    }

    /// The holder of a lock; `None` when nobody has it.
    pub fn holder(path: &Path) -> Option<Holder> {
        let file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(Holder::read(path)),
            _ => None,
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // while the lock is held: nobody can have it on a file that is about to go
        let _ = disk::remove_file(&self.path);
    }
}

/// True for the error of a file system without locks: ENOLCK, ENOSYS or EOPNOTSUPP.
fn has_no_locks(e: &std::io::Error) -> bool {
    e.kind() == std::io::ErrorKind::Unsupported || e.raw_os_error() == Some(37)
}

/// True if the open file still has this name.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |m: &std::fs::Metadata| (m.dev(), m.ino());
    matches!((&file.metadata(), &path.metadata()), (Ok(a), Ok(b)) if id(a) == id(b))
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> bool {
    path.exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        assert_eq!(FileLock::holder(&path), None);
        let Attempt::Taken(lock) = FileLock::take(&path).unwrap() else { panic!("nobody has it") };
        let Attempt::Busy(holder) = FileLock::take(&path).unwrap() else { panic!("two have it") };
        assert_eq!(holder.pid, std::process::id());
        assert_eq!(FileLock::holder(&path), Some(holder.clone()));
        assert!(holder.to_string().contains(&format!("process {} on ", std::process::id())), "{holder}");
        drop(lock);
        assert!(!path.exists());
    }

    #[test]
    fn the_file_of_a_dead_process_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.lock");
        std::fs::write(&path, r#"{"pid": 1, "host": "gone", "started": "2020-01-01T00:00:00Z"}"#).unwrap();
        assert_eq!(FileLock::holder(&path), None);
        let Attempt::Taken(_lock) = FileLock::take(&path).unwrap() else { panic!("nobody has it") };
        assert_eq!(FileLock::holder(&path).unwrap().pid, std::process::id());
    }
}
