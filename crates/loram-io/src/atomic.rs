//! Files and folders that appear completely or not at all: written under a temporary name beside the target, synced,
//! then renamed. An error or an unwound panic removes the temporary file.

use crate::{Error, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::{NamedTempFile, TempDir};

/// A file being written; it appears under its name at [`AtomicFile::commit`]. Dropped before that, it leaves nothing.
pub struct AtomicFile {
    out: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates a temporary file for `path`; missing parent folders are created.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile> {
        let path = path.as_ref().to_path_buf();
        let name = path.file_name().ok_or_else(|| Error::Usage(format!("`{}` is not a file name", path.display())))?;
        let dir = parent(&path);
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let prefix = format!(".{}.tmp-", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // the default of temporary files is 0600; ours end up as ordinary files under the user's umask
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(dir).map_err(|e| Error::io("create", &path, e))?;
        Ok(AtomicFile { out: BufWriter::with_capacity(1 << 20, file), path })
    }

    /// The target path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes bytes; errors name the target file.
    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    /// Syncs the file and renames it to its target, replacing an older file.
    pub fn commit(self) -> Result<()> {
        let AtomicFile { out, path } = self;
        let io = |e| Error::io("write", &path, e);
        let file = out.into_inner().map_err(|e| io(e.into_error()))?;
        file.as_file().sync_all().map_err(io)?;
        file.persist(&path).map_err(|e| io(e.error))?;
        sync_dir(parent(&path));
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// Writes a file through `fill`; nothing is left behind when that fails.
pub fn write_file(path: impl AsRef<Path>, fill: impl FnOnce(&mut AtomicFile) -> std::io::Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    fill(&mut file).map_err(|e| Error::io("write", &file.path, e))?;
    file.commit()
}

/// Writes these bytes as a file.
pub fn write_bytes(path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
    write_file(path, |w| w.write_all(bytes))
}

/// Writes a value as JSON, indented by two spaces, with a newline at the end.
pub fn write_json(path: impl AsRef<Path>, value: &impl Serialize) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| Error::json(path.as_ref(), e))?;
    text.push(b'\n');
    write_bytes(path, &text)
}

/// A folder being filled under a temporary name beside its target. Dropped without [`AtomicDir::commit`], it leaves
/// nothing.
pub struct AtomicDir {
    temp: TempDir,
    target: PathBuf,
}

impl AtomicDir {
    /// Creates a temporary folder for `target`; missing parent folders are created.
    pub fn create(target: impl AsRef<Path>) -> Result<AtomicDir> {
        let target = target.as_ref().to_path_buf();
        if target.exists() && !target.is_dir() {
            return Err(Error::Usage(format!("`{}` exists and is not a folder", target.display())));
        }
        let name =
            target.file_name().ok_or_else(|| Error::Usage(format!("`{}` is not a folder name", target.display())))?;
        let dir = parent(&target);
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
        let prefix = format!(".{}.tmp-", name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        let temp = builder.tempdir_in(dir).map_err(|e| Error::io("create", &target, e))?;
        Ok(AtomicDir { temp, target })
    }

    /// The temporary folder.
    pub fn path(&self) -> &Path {
        self.temp.path()
    }

    /// The target path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Moves the folder into place. When the target exists, its files of the same names are replaced and all others
    /// kept; if a move fails half-way, the old files are put back.
    pub fn commit(self) -> Result<()> {
        let AtomicDir { temp, target } = self;
        let empty = fs::read_dir(&target).is_ok_and(|mut d| d.next().is_none());
        if empty || !target.exists() {
            let from = temp.keep();
            if let Err(e) = fs::rename(&from, &target) {
                let _ = fs::remove_dir_all(&from);
                return Err(Error::io("create", &target, e));
            }
            sync_dir(parent(&target));
            return Ok(());
        }
        let files = files_below(temp.path()).map_err(|e| Error::io("read", temp.path(), e))?;
        let backup = tempfile::Builder::new()
            .prefix(".replaced-")
            .tempdir_in(temp.path())
            .map_err(|e| Error::io("create", &target, e))?;
        let mut done: Vec<&PathBuf> = Vec::new();
        for name in &files {
            if let Err(e) = replace(&temp.path().join(name), &target.join(name), &backup.path().join(name)) {
                for name in done {
                    let old = backup.path().join(name);
                    let _ = if old.exists() {
                        fs::rename(old, target.join(name))
                    } else {
                        fs::remove_file(target.join(name))
                    };
                }
                return Err(Error::io("write", target.join(name), e));
            }
            done.push(name);
        }
        sync_dir(&target);
        Ok(())
    }
}

/// Moves `new` to `at`, and what was at `at` to `old`; when the first fails, `at` is as before.
fn replace(new: &Path, at: &Path, old: &Path) -> std::io::Result<()> {
    fs::create_dir_all(parent(at))?;
    let had = at.exists();
    if had {
        fs::create_dir_all(parent(old))?;
        fs::rename(at, old)?;
    }
    fs::rename(new, at).inspect_err(|_| {
        if had {
            let _ = fs::rename(old, at);
        }
    })
}

/// Files in a folder and its subfolders, relative, sorted.
fn files_below(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    fn walk(dir: &Path, below: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = below.join(entry.file_name());
            if entry.file_type()?.is_dir() { walk(&entry.path(), &name, out)? } else { out.push(name) }
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk(dir, Path::new(""), &mut out)?;
    out.sort();
    Ok(out)
}

/// An [`Error::NoSpace`] when the file system of `path` (which need not exist yet) has fewer than `needed` bytes free.
pub fn ensure_space(path: impl AsRef<Path>, needed: u64) -> Result<()> {
    let path = path.as_ref();
    match free_space(path) {
        Some(free) if free < needed => Err(Error::NoSpace { path: path.into(), needed, free }),
        _ => Ok(()),
    }
}

/// Bytes that this user may still write on the file system of `path` or of its nearest existing parent; `None` when
/// the system does not say.
pub fn free_space(path: &Path) -> Option<u64> {
    #[cfg(unix)]
    {
        let absolute = std::path::absolute(path).ok()?;
        let existing = absolute.ancestors().find(|p| p.exists())?;
        let stat = rustix::fs::statvfs(existing).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Makes a rename durable. Some file systems refuse to sync a folder; the data are safe without it.
fn sync_dir(dir: &Path) {
    if let Ok(dir) = File::open(dir) {
        let _ = dir.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut n: Vec<_> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        n.sort();
        n
    }

    #[test]
    fn failed_write_leaves_the_old_file_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.txt");
        write_bytes(&path, b"old").unwrap();
        let e = write_file(&path, |w| {
            w.write_all(b"half of the n")?;
            Err(std::io::Error::other("disk on fire"))
        });
        assert!(e.unwrap_err().to_string().contains("disk on fire"));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(names(&dir.path().join("a")), ["b.txt"]);
        write_bytes(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[cfg(unix)]
    #[test]
    fn files_get_ordinary_permissions() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        write_bytes(dir.path().join("ours"), b"").unwrap();
        fs::write(dir.path().join("plain"), b"").unwrap();
        let mode = |n: &str| fs::metadata(dir.path().join(n)).unwrap().permissions().mode();
        assert_eq!(mode("ours"), mode("plain"));
    }

    #[test]
    fn folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        {
            let half = AtomicDir::create(&target).unwrap();
            fs::write(half.path().join("x"), b"1").unwrap();
        }
        assert!(names(dir.path()).is_empty(), "a dropped folder leaves nothing");
        let new = AtomicDir::create(&target).unwrap();
        fs::write(new.path().join("x"), b"1").unwrap();
        new.commit().unwrap();
        assert_eq!(names(dir.path()), ["out"]);

        // onto an existing folder: same names replaced, others kept
        fs::write(target.join("kept"), b"k").unwrap();
        let new = AtomicDir::create(&target).unwrap();
        fs::write(new.path().join("x"), b"2").unwrap();
        fs::create_dir(new.path().join("sub")).unwrap();
        fs::write(new.path().join("sub/y"), b"3").unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read(target.join("x")).unwrap(), b"2");
        assert_eq!(names(&target), ["kept", "sub", "x"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn failed_move_puts_the_old_files_back() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        fs::create_dir(&target).unwrap();
        fs::write(target.join("a"), b"old").unwrap();
        fs::write(target.join("sub"), b"a file where a folder is needed").unwrap();
        let new = AtomicDir::create(&target).unwrap();
        fs::write(new.path().join("a"), b"new").unwrap();
        fs::write(new.path().join("b"), b"new").unwrap();
        fs::create_dir(new.path().join("sub")).unwrap();
        fs::write(new.path().join("sub/y"), b"new").unwrap();
        assert!(new.commit().is_err());
        assert_eq!(fs::read(target.join("a")).unwrap(), b"old");
        assert_eq!(names(&target), ["a", "sub"]);
        assert_eq!(names(dir.path()), ["out"]);
    }

    #[test]
    fn space_is_checked_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        ensure_space(dir.path().join("not/there/yet"), 1).unwrap();
        let e = ensure_space(dir.path(), u64::MAX).unwrap_err();
        assert_eq!(e.exit_code(), 1);
        assert!(e.to_string().contains("needed") && e.to_string().contains("free"), "{e}");
    }
}
