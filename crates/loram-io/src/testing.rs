//! Where the tests of this workspace find material that is not part of the repository.

use std::path::{Path, PathBuf};

/// The folder of shared models and data: `$LORAM_SHARED`, else `shared` next to the repository. `None` (with a printed
/// reason) when it is absent: such tests skip.
pub fn shared_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("LORAM_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => repo_root().parent()?.join("shared"),
    };
    if dir.is_dir() {
        return Some(dir);
    }
    eprintln!("skipped: no folder {} (set LORAM_SHARED)", dir.display());
    None
}

/// The repository's root folder.
pub fn repo_root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap_or(root)
}

/// The small Llama under `assets/`.
pub fn tiny_llama() -> PathBuf {
    repo_root().join("assets/tiny-llama-en")
}
