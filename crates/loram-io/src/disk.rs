//! Changes of a file system: creating, writing, syncing, renaming, exchanging and removing. Each names its file in an error.

use crate::fault;
use crate::{Error, Result};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Infix of temporary names, between the name of their target and a random end.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The folder that holds a path; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// Creates a folder and its missing parents. Returns those that were created, the outermost first.
pub fn create_dirs(dir: &Path) -> Result<Vec<PathBuf>> {
    let missing: Vec<PathBuf> =
        dir.ancestors().take_while(|p| !p.as_os_str().is_empty() && !p.exists()).map(Path::to_path_buf).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match fault::point().and_then(|()| fs::create_dir(&path)) {
            Ok(()) => {
                sync_dir(parent(&path))?;
                made.push(path);
            }
            // another process was quicker
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(e) => return Err(Error::io("create", &path, e)),
        }
    }
    match dir.is_dir() {
        true => Ok(made),
        false => Err(Error::io("create", dir, std::io::Error::other("a file of this name is in the way"))),
    }
}

/// Writes bytes at the end of a file.
pub fn append(mut file: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    fault::point().and_then(|()| file.write_all(bytes)).map_err(|e| Error::io("write", path, e))
}

/// Makes the content of a file durable.
pub fn sync_file(file: &File, path: &Path) -> Result<()> {
    fault::point().and_then(|()| file.sync_all()).map_err(|e| Error::io("write", path, e))
}

/// Makes names in a folder durable. File systems that cannot sync a folder are passed over.
pub fn sync_dir(dir: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    match fault::point().and_then(|()| open_folder(dir)?.sync_all()) {
        // denied for a folder that may be written to but not read, and for every folder on Windows
        Err(e) if matches!(e.kind(), InvalidInput | PermissionDenied | Unsupported) => Ok(()),
        other => other.map_err(|e| Error::io("write", dir, e)),
    }
}

/// Renames, replacing a file or an empty folder of the new name, and makes the new name durable.
pub fn rename(from: &Path, to: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::rename(from, to)).map_err(|e| Error::io("write", to, e))?;
    sync_dir(parent(to))
}

/// Exchanges two paths in one step. `Ok(false)`: this file system cannot.
pub fn exchange(a: &Path, b: &Path) -> Result<bool> {
    fault::point().map_err(|e| Error::io("write", b, e))?;
    match exchange_names(a, b) {
        Ok(true) => sync_dir(parent(b)).map(|()| true),
        Ok(false) => Ok(false),
        Err(e) => Err(Error::io("write", b, e)),
    }
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
fn exchange_names(a: &Path, b: &Path) -> std::io::Result<bool> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    match renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(true),
        // layered file systems cannot move folders of a lower layer at once
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos")))]
fn exchange_names(_: &Path, _: &Path) -> std::io::Result<bool> {
    Ok(false)
}

/// Removes a file; one that is not there is as good.
pub fn remove_file(path: &Path) -> Result<()> {
    match fault::point().and_then(|()| fs::remove_file(path)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Removes a folder with all that is in it. It loses its name first, so that no half of it is ever taken for the whole.
pub fn remove_dir(path: &Path) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = (0..)
        .map(|i| parent(path).join(format!(".{name}{TEMPORARY}removed{i}")))
        .find(|p| !p.exists())
        .expect("a free name");
    match name.starts_with('.') {
        true => remove_below(path),
        false => rename(path, &hidden).and_then(|()| remove_below(&hidden)),
    }
}

/// Removes a folder if it is empty.
pub fn remove_empty(dir: &Path) {
    let _ = fault::point().and_then(|()| fs::remove_dir(dir));
}

fn remove_below(dir: &Path) -> Result<()> {
    fault::point().and_then(|()| fs::remove_dir_all(dir)).map_err(|e| Error::io("remove", dir, e))
}

/// Removes what killed programs left in a folder that nobody else writes to: temporary files and folders. A folder whose
/// replacement stopped between two renames gets its name back.
pub fn remove_unfinished(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if !name.starts_with('.') {
            continue;
        }
        if let Some(target) = replaced(&name).map(|n| dir.join(n)).filter(|t| !t.exists()) {
            rename(&path, &target)?;
        } else if is_unfinished(&name) || replaced(&name).is_some() {
            if path.is_dir() { remove_dir(&path)? } else { remove_file(&path)? }
        }
    }
    Ok(())
}

/// True for the name of a temporary file or folder.
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.contains(TEMPORARY)
}

/// The name that a folder had before it was moved aside for its replacement, of `.NAME.replaced-…`.
pub(crate) fn replaced(name: &str) -> Option<&str> {
    name.strip_prefix('.')?.rsplit_once(".replaced-").map(|n| n.0)
}

/// Opens a folder, to sync or to lock it.
pub(crate) fn open_folder(path: &Path) -> std::io::Result<File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    // FILE_FLAG_BACKUP_SEMANTICS, without which Windows opens files only
    #[cfg(windows)]
    std::os::windows::fs::OpenOptionsExt::custom_flags(&mut options, 0x0200_0000);
    options.open(path)
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
    let absolute = std::path::absolute(path).ok()?;
    let existing = absolute.ancestors().find(|p| p.exists())?;
    #[cfg(unix)]
    return rustix::fs::statvfs(existing).ok().map(|stat| stat.f_bavail * stat.f_frsize);
    #[cfg(windows)]
    return fs4::available_space(existing).ok();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, with};

    #[test]
    fn folders_are_created_with_their_parents() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        assert_eq!(create_dirs(&deep).unwrap(), [dir.path().join("a"), dir.path().join("a/b"), deep.clone()]);
        assert!(create_dirs(&deep).unwrap().is_empty());
        fs::write(dir.path().join("file"), "").unwrap();
        let e = create_dirs(&dir.path().join("file")).unwrap_err();
        assert!(e.to_string().contains("file"), "{e}");
    }

    #[test]
    fn a_folder_is_never_half_removed_under_its_name() {
        let dir = tempfile::tempdir().unwrap();
        for at in 1.. {
            let whole = dir.path().join("whole");
            fs::create_dir_all(&whole).unwrap();
            fs::write(whole.join("a"), "1").unwrap();
            let (done, seen) = with(Fault::Freeze, at, || remove_dir(&whole));
            assert!(!whole.exists() || whole.join("a").exists());
            remove_unfinished(dir.path()).unwrap();
            assert!(fs::read_dir(dir.path()).unwrap().flatten().all(|e| e.path() == whole), "nothing else is left");
            if seen < at {
                assert!(done.is_ok());
                break;
            }
        }
    }

    #[test]
    fn space_is_checked_with_both_figures() {
        let dir = tempfile::tempdir().unwrap();
        ensure_space(dir.path().join("not/there/yet"), 1).unwrap();
        let e = ensure_space(dir.path(), u64::MAX).unwrap_err();
        assert_eq!(e.exit_code(), 1);
        assert!(e.to_string().contains("needed") && e.to_string().contains("free"), "{e}");
    }

    #[test]
    fn errors_of_the_disk_are_reported() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, "").unwrap();
        for at in [1, 2] {
            let (done, _) = with(Fault::Fail(5), at, || rename(&path, &dir.path().join("y")));
            assert!(done.unwrap_err().to_string().contains("error 5"));
            let _ = fs::rename(dir.path().join("y"), &path);
        }
    }
}
