//! Files and folders that appear completely or not at all: written under a temporary name beside the target, synced,
//! then renamed or exchanged. An error or an unwound panic removes the temporary file; one that a killed program left is
//! removed by the next program that writes the same target.

use crate::disk::{self, TEMPORARY, parent};
use crate::fault;
use crate::{Error, Result};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

pub use crate::disk::{ensure_space, free_space};

/// Treatment of an earlier result of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the new one is an error.
    Refuse,
    /// It is replaced when the new one is complete.
    Replace,
}

/// Where a result goes. A path alone keeps what is there.
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// The file or folder.
    pub path: &'a Path,
    /// Treatment of an earlier result there.
    pub existing: Existing,
}

impl<'a> Output<'a> {
    /// The output of a command, with its `--overwrite`.
    pub fn new(path: &'a Path, overwrite: bool) -> Output<'a> {
        Output { path, existing: if overwrite { Existing::Replace } else { Existing::Refuse } }
    }

    /// The check of everything that writes a result: an error if something has its name and must stay. An empty folder
    /// counts as nothing.
    pub fn check(&self) -> Result<()> {
        match self.is_there() && self.existing == Existing::Refuse {
            true => Err(Error::Exists { path: self.path.to_path_buf() }),
            false => Ok(()),
        }
    }

    /// The same for a folder, which only takes the place of one of its own kind: with a file of this name in it.
    pub fn check_folder(&self, kind: &str, file: &str) -> Result<()> {
        self.check()?;
        match self.is_there() && !self.path.join(file).exists() {
            true => Err(Error::Usage(format!(
                "{}: is not {kind} (there is no {file}), and only {kind} is replaced: give another output",
                self.path.display()
            ))),
            false => Ok(()),
        }
    }

    fn is_there(&self) -> bool {
        match fs::read_dir(self.path) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => self.path.symlink_metadata().is_ok(),
        }
    }
}

impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Output<'a> {
    fn from(path: &'a P) -> Output<'a> {
        Output::new(path.as_ref(), false)
    }
}

/// A temporary file or folder beside its target, locked while its program lives, removed when it is dropped.
struct Temporary {
    path: PathBuf,
    /// The lock ends with the program, so that others see whether it still writes.
    file: File,
    moved: bool,
}

impl Temporary {
    /// Makes one beside `target`, whose missing parents are created. What killed programs left for the same target goes.
    fn beside(target: &Path, folder: bool) -> Result<Temporary> {
        let name = target.file_name().ok_or_else(|| {
            let kind = if folder { "folder" } else { "file" };
            Error::Usage(format!("`{}` is not a {kind} name", target.display()))
        })?;
        let dir = parent(target);
        disk::create_dirs(dir)?;
        let prefix = format!(".{}{TEMPORARY}", name.to_string_lossy());
        remove_abandoned(dir, &prefix);
        let io = |e| Error::io("create", target, e);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix);
        // the default of temporary files is 0600; ours end up as ordinary files under the user's umask
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(if folder { 0o777 } else { 0o666 }));
        loop {
            fault::point().map_err(io)?;
            let (file, path) = match folder {
                true => {
                    let path = builder.tempdir_in(dir).map_err(io)?.keep();
                    (disk::open_folder(&path).map_err(io)?, path)
                }
                false => builder.tempfile_in(dir).map_err(io)?.keep().map_err(|e| io(e.error))?,
            };
            // where there are no locks, abandoned files stay
            let _ = file.lock();
            // between its creation and its lock another program may have taken it for abandoned
            if path.exists() {
                return Ok(Temporary { path, file, moved: false });
            }
        }
    }

    fn rename(&mut self, target: &Path) -> Result<()> {
        disk::rename(&self.path, target).inspect(|()| self.moved = true)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.moved {
            let _ = if self.path.is_dir() { disk::remove_dir(&self.path) } else { disk::remove_file(&self.path) };
        }
    }
}

/// Removes temporary files whose programs are dead. Those that cannot be locked or removed stay.
fn remove_abandoned(dir: &Path, prefix: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let path = entry.path();
        let lock = File::open(&path).map(|f| f.try_lock().map(|()| f));
        if let Ok(Ok(_locked)) = lock {
            let _ = if path.is_dir() { disk::remove_dir(&path) } else { disk::remove_file(&path) };
        }
    }
}

/// A file being written; it appears under its name at [`AtomicFile::commit`]. Dropped before that, it leaves nothing. In the
/// temporary folder of an [`AtomicDir`], which appears as a whole, it has its name at once.
pub struct AtomicFile {
    out: BufWriter<File>,
    temp: Option<Temporary>,
    path: PathBuf,
}

impl AtomicFile {
    /// Creates a temporary file for `path`; missing parent folders are created.
    pub fn create(path: impl AsRef<Path>) -> Result<AtomicFile> {
        let path = path.as_ref().to_path_buf();
        let (file, temp, path) = match in_final_folder(&path) {
            Some(shown) => {
                let create = || File::create(&path);
                (fault::point().and_then(|()| create()).map_err(|e| Error::io("create", &shown, e))?, None, shown)
            }
            None => {
                let temp = Temporary::beside(&path, false)?;
                (temp.file.try_clone().map_err(|e| Error::io("create", &path, e))?, Some(temp), path)
            }
        };
        Ok(AtomicFile { out: BufWriter::with_capacity(1 << 20, file), temp, path })
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
        let AtomicFile { mut out, temp, path } = self;
        fault::point().and_then(|()| out.flush()).map_err(|e| Error::io("write", &path, e))?;
        disk::sync_file(out.get_ref(), &path)?;
        match temp {
            Some(mut temp) => temp.rename(&path),
            None => Ok(()),
        }
    }
}

/// The path that a file in the temporary folder of an [`AtomicDir`] will have; `None` for other files.
fn in_final_folder(path: &Path) -> Option<PathBuf> {
    let folder = parent(path);
    let name = folder.file_name()?.to_str()?;
    let target = name.strip_prefix('.')?.rsplit_once(TEMPORARY)?.0;
    Some(folder.with_file_name(target).join(path.file_name()?))
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
    temp: Temporary,
    target: PathBuf,
    existing: Existing,
}

impl AtomicDir {
    /// Creates a temporary folder for `target`; missing parent folders are created. An error if the target is a file, or
    /// must stay and is not empty.
    pub fn create<'a>(output: impl Into<Output<'a>>) -> Result<AtomicDir> {
        let output = output.into();
        let target = output.path.to_path_buf();
        if target.exists() && !target.is_dir() {
            return Err(Error::Usage(format!("`{}` exists and is not a folder", target.display())));
        }
        restore_replaced(&target)?;
        output.check()?;
        let temp = Temporary::beside(&target, true)?;
        Ok(AtomicDir { temp, target, existing: output.existing })
    }

    /// The temporary folder.
    pub fn path(&self) -> &Path {
        &self.temp.path
    }

    /// The target path.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Moves the folder into place in one step, in exchange for an earlier one, which is then removed.
    pub fn commit(self) -> Result<()> {
        self.commit_keeping(|_| false)
    }

    /// The same; entries of the earlier folder for whose names `keep` is true and which the new folder lacks are taken over.
    pub fn commit_keeping(self, keep: impl Fn(&str) -> bool) -> Result<()> {
        self.place(keep, disk::exchange)
    }

    fn place(mut self, keep: impl Fn(&str) -> bool, exchange: impl FnOnce(&Path, &Path) -> Result<bool>) -> Result<()> {
        Output { path: &self.target, existing: self.existing }.check()?;
        disk::sync_dir(&self.temp.path)?;
        if fs::read_dir(&self.target).map_or(true, |mut d| d.next().is_none()) {
            return self.temp.rename(&self.target);
        }
        for entry in fs::read_dir(&self.target).map_err(|e| Error::io("read", &self.target, e))?.flatten() {
            let to = self.temp.path.join(entry.file_name());
            if keep(&entry.file_name().to_string_lossy()) && !to.exists() {
                link(&entry.path(), &to).map_err(|e| Error::io("copy", entry.path(), e))?;
            }
        }
        disk::sync_dir(&self.temp.path)?;
        if exchange(&self.temp.path, &self.target)? {
            // dropped, the temporary folder, which now is the earlier one, goes
            return Ok(());
        }
        // without an exchange: if the program is killed between the renames, the earlier folder gets its name back
        let name = self.target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let aside = parent(&self.target).join(format!(".{name}.replaced-{}", std::process::id()));
        disk::rename(&self.target, &aside)?;
        if let Err(e) = self.temp.rename(&self.target) {
            let _ = disk::rename(&aside, &self.target);
            return Err(e);
        }
        disk::remove_dir(&aside)
    }
}

/// Gives a folder its name back when a program was killed between the two renames of its replacement, and removes the
/// earlier folder when it was killed after them.
fn restore_replaced(target: &Path) -> Result<()> {
    let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in fs::read_dir(parent(target)).into_iter().flatten().flatten() {
        if disk::replaced(&entry.file_name().to_string_lossy()) == Some(&name) {
            match target.exists() {
                true => disk::remove_dir(&entry.path())?,
                false => disk::rename(&entry.path(), target)?,
            }
        }
    }
    Ok(())
}

/// A second name for a file, or a copy of it; of a folder, for all files in it.
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    fault::point()?;
    if !from.is_dir() {
        return fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    }
    fs::create_dir(to)?;
    fs::read_dir(from)?.try_for_each(|entry| {
        let entry = entry?;
        link(&entry.path(), &to.join(entry.file_name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Fault, with};

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

    /// A folder whose file `x` has this text and which has a file of this name, placed as `place` does it.
    fn folder(target: &Path, text: &str, other: &str) -> Result<AtomicDir> {
        let new = AtomicDir::create(Output::new(target, true))?;
        fs::write(new.path().join("x"), text).unwrap();
        fs::create_dir(new.path().join(other)).unwrap();
        fs::write(new.path().join(other).join("y"), text).unwrap();
        Ok(new)
    }

    #[test]
    fn folder_appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        drop(folder(&target, "1", "first").unwrap());
        assert!(names(dir.path()).is_empty(), "a dropped folder leaves nothing");
        folder(&target, "1", "first").unwrap().commit().unwrap();
        assert_eq!(names(dir.path()), ["out"]);
        let e = AtomicDir::create(&target).map(drop).unwrap_err();
        assert!(matches!(e, Error::Exists { .. }) && e.exit_code() == 2, "{e}");

        fs::write(target.join("note"), b"k").unwrap();
        folder(&target, "2", "second").unwrap().commit_keeping(|name| name == "note").unwrap();
        assert_eq!(fs::read(target.join("x")).unwrap(), b"2");
        assert_eq!(names(&target), ["note", "second", "x"]);
        folder(&target, "3", "third").unwrap().commit_keeping(|name| name != "note").unwrap();
        assert_eq!(names(&target), ["second", "third", "x"]);
        assert_eq!(fs::read(target.join("second/y")).unwrap(), b"2");
        assert_eq!(names(dir.path()), ["out"]);
    }

    /// At each change of the file system: the folder is the old one or the new one, or, without exchanges, comes back; the
    /// next program finds nothing left over.
    #[test]
    fn killed_anywhere_the_folder_is_the_old_or_the_new_one() {
        for can_exchange in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("out");
            for at in 1.. {
                let _ = fs::remove_dir_all(&target);
                folder(&target, "old", "sub").unwrap().commit().unwrap();
                let exchange = |a: &Path, b: &Path| if can_exchange { disk::exchange(a, b) } else { Ok(false) };
                let replace = || folder(&target, "new", "sub")?.place(|_| false, exchange);
                let (done, seen) = with(Fault::Freeze, at, replace);
                let whole = |text: &str| {
                    let read = |name: &str| fs::read_to_string(target.join(name)).unwrap_or_default();
                    read("x") == text && read("sub/y") == text
                };
                let gone = !can_exchange && !target.exists();
                assert!(whole("old") || whole("new") || gone, "change {at}");
                folder(&target, "last", "sub").unwrap().place(|_| false, exchange).unwrap();
                disk::remove_unfinished(dir.path()).unwrap();
                assert!(whole("last"));
                assert_eq!(names(dir.path()), ["out"], "change {at}");
                if seen < at {
                    done.unwrap();
                    break;
                }
            }
        }
    }

    #[test]
    fn abandoned_files_go_and_those_in_use_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(dir.path().join(".a.tmp-dead"), "").unwrap();
        fs::create_dir(dir.path().join(".a.tmp-dead-folder")).unwrap();
        fs::write(dir.path().join(".b.tmp-other"), "").unwrap();
        let first = AtomicFile::create(&path).unwrap();
        assert_eq!(names(dir.path()).len(), 2, "{:?}", names(dir.path()));
        let second = AtomicFile::create(&path).unwrap();
        assert_eq!(names(dir.path()).len(), 3, "both are in use");
        first.commit().unwrap();
        second.commit().unwrap();
        assert_eq!(names(dir.path()), [".b.tmp-other", "a"]);
    }

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_bytes(&path, b"old").unwrap();
        for at in 1.. {
            let (done, seen) = with(Fault::Fail(28), at, || write_bytes(&path, b"new"));
            if seen < at {
                break;
            }
            let text = done.unwrap_err().to_string();
            assert!(text.contains("space") || text.contains("error 28"), "{text}");
            assert_eq!(names(dir.path()), ["a"], "change {at}");
            assert!([&b"old"[..], b"new"].contains(&&fs::read(&path).unwrap()[..]));
            fs::write(&path, b"old").unwrap();
        }
    }
}
